"""Samples through a model, with span masses recorded: attention per sample, layer and head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from avar_rl.attention.recorder import record_span_mass
from avar_rl.attention.roles import Markup, Role, has_role, query_positions, token_roles
from avar_rl.probe.samples import Conversation, Queries
from avar_rl.vas import HeadAttention, head_attention, vas_spans

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Shapes: B batch, T tokens, Q queries, S spans, L layers, H heads, N samples.

Result = TypeVar("Result")

# The choices of the command line → those of `query_positions`.
_WHICH: dict[Queries, str] = {"user": "all_user", "response": "response"}
_MOST_SAMPLES = 32  # per batch; more gain nothing
_CPU_BYTES = 4 << 30  # nor does more memory on a CPU


@dataclass(frozen=True)
class Encoded:
    """A padded batch: the model's arguments, and the roles, padding and query positions that a measurement needs."""

    inputs: Mapping[str, Any]
    roles_BT: Tensor
    valid_BT: Tensor
    positions_BQ: Tensor


def load_network(model: str, device: str | None = None) -> PreTrainedModel:
    """The model in evaluation mode under SDPA: on a GPU, where there is one, in its own dtype, else in float32.

    Args:
        model: a directory or the name of a model on the hub.
        device: for example "cpu"; None for a GPU where there is one.

    Raises:
        ValueError: there are no weights that transformers can load.
    """
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = "auto" if device == "cuda" else torch.float32
    try:
        network: Any = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype, attn_implementation="sdpa")
    except OSError as error:
        raise ValueError(f"{model}: holds no weights that transformers can load ({error})") from error
    return network.to(device).eval()


def encode(samples: Sequence[Conversation], processor, markup: Markup, which: str, device) -> Encoded:
    """The conversations as one padded batch on `device`; `which` as in `query_positions`."""
    inputs = processor(
        text=[sample.text(processor) for sample in samples],
        images=[picture for sample in samples for picture in sample.pictures()] or None,
        padding=True,
        return_tensors="pt",
    ).to(device)
    valid_BT = inputs["attention_mask"].bool()
    roles_BT = token_roles(inputs["input_ids"], markup, attention_mask=valid_BT)
    return Encoded(inputs, roles_BT, valid_BT, query_positions(roles_BT, which))


@torch.inference_mode()
def measure(
    network: PreTrainedModel,
    samples: Sequence[Conversation],
    processor,
    *,
    queries: Queries = "user",
    layers: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> HeadAttention:
    """VAS and masses of every sample, layer and head, in the order of `samples`.

    Args:
        network: a model as `load_network` gives it.
        processor: the model's processor of transformers.
        queries: whose attention is measured.
        layers: indices of decoder layers; None for all of the language model.
        batch_size: samples per forward pass, of similar length; None for as many as memory allows.

    Raises:
        ValueError: no samples, a layer that does not exist, a tokenizer without Qwen's markup, an unreadable image, or
            a sample that does not fit into the GPU's memory.
    """
    markup = Markup.from_tokenizer(processor.tokenizer)

    def forward(batch: list[Conversation]) -> HeadAttention:
        return _measure_batch(network, batch, processor, markup, _WHICH[queries], layers)

    return in_order(*in_batches(network, samples, processor, batch_size, forward))


def in_batches(
    network: PreTrainedModel,
    samples: Sequence[Conversation],
    processor,
    batch_size: int | None,
    forward: Callable[[list[Conversation]], Result],
) -> tuple[list[Result], list[int]]:
    """Calls `forward` with batches of samples of similar length; a batch that a GPU cannot hold is halved.

    Returns what it gave for each batch, and the places in `samples` of the batches' samples, one after another.
    ValueError: as in `measure`.
    """
    if not samples:
        raise ValueError("there are no samples to measure")
    lengths = [sample.tokens(processor) for sample in samples]
    order = sorted(range(len(samples)), key=lengths.__getitem__, reverse=True)
    size = batch_size or fitting_batch_size(network, lengths[order[0]])
    found: list[Result] = []
    with tqdm(total=len(samples), desc="probe", unit="sample", disable=None) as bar:
        start = 0
        while start < len(order):
            batch = [samples[place] for place in order[start : start + size]]
            try:
                found.append(forward(batch))
            except torch.cuda.OutOfMemoryError as error:
                if size == 1:
                    length = lengths[order[start]]
                    raise ValueError(f"sample {batch[0].id}, {length} tokens, does not fit into this GPU") from error
                torch.cuda.empty_cache()
                size = (size + 1) // 2
                continue
            start += len(batch)
            bar.update(len(batch))
    return found, order


def _measure_batch(network, samples, processor, markup: Markup, which: str, layers) -> HeadAttention:
    batch = encode(samples, processor, markup, which, network.device)
    spans_BST = vas_spans(batch.roles_BT, valid_BT=batch.valid_BT)
    where = dict(query_positions=batch.positions_BQ, valid=batch.valid_BT)
    with record_span_mass(network, spans_BST, layers=layers, **where) as record:
        network(**batch.inputs, use_cache=False, logits_to_keep=1)
    return head_attention(record.stack(), batch.positions_BQ, batch.roles_BT)


def in_order(batches: Sequence[HeadAttention], order: Sequence[int]) -> HeadAttention:
    """The samples of all batches, put back into the order in which they came: see `in_batches`."""
    place_N = torch.tensor(order).argsort()
    columns = {field.name: [getattr(batch, field.name).cpu() for batch in batches] for field in fields(HeadAttention)}
    return HeadAttention(**{name: torch.cat(parts)[place_N] for name, parts in columns.items()})


def fitting_batch_size(network: PreTrainedModel, longest: int) -> int:
    """How many samples of `longest` tokens a recorded forward pass surely holds: its memory is estimated from above."""
    import psutil

    if network.device.type == "cuda":
        free = torch.cuda.mem_get_info(network.device)[0] // 2
    else:
        free = min(psutil.virtual_memory().available // 4, _CPU_BYTES)
    config: Any = network.config
    text, vision = config.get_text_config(), config.vision_config
    bytes_each = next(network.parameters()).element_size()
    token = bytes_each * (8 * text.hidden_size + 3 * text.intermediate_size)
    token += 4 * bytes_each * 12 * vision.hidden_size  # four patches to an image token
    token += 100 * text.num_hidden_layers * text.num_attention_heads  # masses, were every token a query
    needed = longest * token + 5 * longest**2  # the padding mask, as booleans and as numbers
    return max(1, min(_MOST_SAMPLES, free // needed))


@torch.inference_mode()
def image_attention(
    network: PreTrainedModel,
    sample: Conversation,
    processor,
    *,
    queries: Queries = "user",
    layers: Sequence[int] | None = None,
) -> Tensor:
    """The attention weight on every token of the sample's first image, float32 (h, w) on the CPU.

    A mean over `layers` (None for all), heads and the queries chosen by `queries`. ValueError: the sample has no image
    or no query.
    """
    batch = encode([sample], processor, Markup.from_tokenizer(processor.tokenizer), _WHICH[queries], network.device)
    image_T = has_role(batch.roles_BT[0], Role.IMAGE).nonzero().squeeze(1)
    Q = batch.positions_BQ.shape[1]
    if not len(image_T) or not Q:
        raise ValueError(f"sample {sample.id} has no image or no {queries} text: there is nothing to overlay")
    _, h, w = (batch.inputs["image_grid_thw"][0] // processor.image_processor.merge_size).tolist()
    spans_1ST = torch.zeros(1, h * w, batch.roles_BT.shape[1], dtype=torch.bool, device=network.device)
    spans_1ST[0, torch.arange(h * w), image_T[: h * w]] = True  # every image token is a span of its own
    with record_span_mass(network, spans_1ST, query_positions=batch.positions_BQ, layers=layers) as record:
        network(**batch.inputs, use_cache=False, logits_to_keep=1)
    means = [record.masses[layer].mean((0, 2, 3)) for layer in record.layers]
    return torch.stack(means).mean(0).view(h, w).cpu()
