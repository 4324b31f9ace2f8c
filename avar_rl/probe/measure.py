"""Samples through a model, with span masses recorded: attention per sample, layer and head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from tqdm import tqdm

from avar_rl.attention.recorder import record_span_mass
from avar_rl.attention.roles import Markup, Role, query_rows, token_roles
from avar_rl.probe.samples import Sample
from avar_rl.vas import HeadAttention, head_attention, vas_spans

# Shapes: B batch, T tokens, R rows, S spans, L layers, H heads, N samples.

ROWS = {"user": "all_user", "response": "response"}  # of the command line → of `query_rows`
_MOST_SAMPLES = 32  # per batch; more gain nothing
_CPU_BYTES = 4 << 30  # nor does more memory on a CPU


@dataclass(frozen=True)
class Encoded:
    """A batch as the model takes it, and what the measurement needs of it."""

    inputs: dict[str, Tensor]
    roles_BT: Tensor
    valid_BT: Tensor
    rows_BR: Tensor


def load_network(model: str, device: str | None = None) -> nn.Module:
    """The model, ready, under SDPA: on a GPU in its own dtype where there is one, else in float32 on the CPU."""
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = "auto" if device == "cuda" else torch.float32
    network = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype, attn_implementation="sdpa")
    return network.to(device).eval()


def encode(samples: Sequence[Sample], processor, markup: Markup, rows: str, device) -> Encoded:
    """The samples as one padded batch; `rows` as in `query_rows`."""
    inputs = processor(
        text=[sample.text(processor) for sample in samples],
        images=[picture for sample in samples for picture in sample.pictures()] or None,
        padding=True,
        return_tensors="pt",
    ).to(device)
    valid_BT = inputs["attention_mask"].bool()
    roles_BT = token_roles(inputs["input_ids"], markup, attention_mask=valid_BT)
    return Encoded(inputs, roles_BT, valid_BT, query_rows(roles_BT, rows))


@torch.inference_mode()
def measure(
    network: nn.Module,
    samples: Sequence[Sample],
    processor,
    *,
    rows: str = "user",
    layers: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> HeadAttention:
    """Attention of every sample (N, L, H), in the order of `samples`; `layers` None for all of the language model.

    Batches are of similar length and, unless `batch_size` says how many samples, as large as memory allows.
    ValueError: no samples, a layer that does not exist, a tokenizer without Qwen's markup, an unreadable image.
    """
    if not samples:
        raise ValueError("there are no samples to measure")
    markup = Markup.from_tokenizer(processor.tokenizer)
    lengths = [sample.tokens(processor) for sample in samples]
    order = sorted(range(len(samples)), key=lengths.__getitem__, reverse=True)
    size = batch_size or fitting_batch_size(network, lengths[order[0]])
    found: list[HeadAttention] = []
    with tqdm(total=len(samples), desc="probe", unit="sample", disable=None) as bar:
        start = 0
        while start < len(order):
            batch = [samples[place] for place in order[start : start + size]]
            try:
                found.append(_measure_batch(network, batch, processor, markup, ROWS[rows], layers))
            except torch.cuda.OutOfMemoryError as error:
                if size == 1:
                    length = lengths[order[start]]
                    raise ValueError(f"sample {batch[0].id}, {length} tokens, does not fit into this GPU") from error
                torch.cuda.empty_cache()
                size = (size + 1) // 2
                continue
            start += len(batch)
            bar.update(len(batch))
    return _in_order(found, order)


def _measure_batch(network, samples, processor, markup: Markup, rows: str, layers) -> HeadAttention:
    batch = encode(samples, processor, markup, rows, network.device)
    spans_BST = vas_spans(batch.roles_BT, valid_BT=batch.valid_BT)
    with record_span_mass(network, spans_BST, rows=batch.rows_BR, layers=layers, valid=batch.valid_BT) as record:
        network(**batch.inputs, use_cache=False, logits_to_keep=1)
    return head_attention(record.stack(), batch.rows_BR, batch.roles_BT)


def _in_order(batches: Sequence[HeadAttention], order: Sequence[int]) -> HeadAttention:
    place_N = torch.tensor(order).argsort()
    columns = {field.name: [getattr(batch, field.name).cpu() for batch in batches] for field in fields(HeadAttention)}
    return HeadAttention(**{name: torch.cat(parts)[place_N] for name, parts in columns.items()})


def fitting_batch_size(network: nn.Module, longest: int) -> int:
    """How many samples of `longest` tokens a forward pass with recording surely holds: an estimate from above."""
    import psutil

    if network.device.type == "cuda":
        free = torch.cuda.mem_get_info(network.device)[0] // 2
    else:
        free = min(psutil.virtual_memory().available // 4, _CPU_BYTES)
    text, vision = network.config.get_text_config(), network.config.vision_config
    bytes_each = next(network.parameters()).element_size()
    token = bytes_each * (8 * text.hidden_size + 3 * text.intermediate_size)
    token += 4 * bytes_each * 12 * vision.hidden_size  # four patches to an image token
    token += 100 * text.num_hidden_layers * text.num_attention_heads  # masses, were every token a row
    needed = longest * token + 5 * longest**2  # the padding mask, as booleans and as numbers
    return max(1, min(_MOST_SAMPLES, free // needed))


@torch.inference_mode()
def image_attention(network: nn.Module, sample: Sample, processor, *, rows: str = "user", layers=None) -> Tensor:
    """(h, w) on the CPU: attention to every token of the sample's first image, mean over layers, heads and rows.

    ValueError: the sample has no image or no rows.
    """
    batch = encode([sample], processor, Markup.from_tokenizer(processor.tokenizer), ROWS[rows], network.device)
    image_T = (batch.roles_BT[0] == Role.IMAGE).nonzero().squeeze(1)
    R = batch.rows_BR.shape[1]
    if not len(image_T) or not R:
        raise ValueError(f"sample {sample.id} has no image or no {rows} text: there is nothing to overlay")
    _, h, w = (batch.inputs["image_grid_thw"][0] // processor.image_processor.merge_size).tolist()
    spans_1ST = torch.zeros(1, h * w, batch.roles_BT.shape[1], dtype=torch.bool, device=network.device)
    spans_1ST[0, torch.arange(h * w), image_T[: h * w]] = True  # every image token is a span of its own
    with record_span_mass(network, spans_1ST, rows=batch.rows_BR, layers=layers) as record:
        network(**batch.inputs, use_cache=False, logits_to_keep=1)
    means = [record.masses[layer].mean((0, 2, 3)) for layer in record.layers]
    return torch.stack(means).mean(0).view(h, w).cpu()
