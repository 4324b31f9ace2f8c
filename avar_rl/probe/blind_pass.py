"""Samples through a model twice, with their images and with masked ones: what each token of a response loses by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from avar_rl.attention.recorder import record_span_mass
from avar_rl.attention.roles import Markup
from avar_rl.blind import BlindSettings, PatchFormat, mask_pixels, response_seed
from avar_rl.probe.measure import Encoded, encode, in_batches, in_order
from avar_rl.probe.samples import Conversation
from avar_rl.vas import HeadAttention, head_attention, vas_spans

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Shapes: B batch, T tokens of a sequence, Q queries, S spans, L layers, H heads, D hidden size, X tokens of all
# responses of a batch, R tokens of one response.

_AT_ONCE = 256  # tokens whose logits, one for each token of the vocabulary, are in memory


@dataclass(frozen=True)
class ResponseTokens:
    """The tokens of one sample's response, in the order in which they stand, on the CPU.

    ids_R: int64.
    log_probs_R, blind_log_probs_R: float64, in nats, with the image and with the masked one.
    image_mass_RL: float64, the attention weight on the image with the token as query, as VAS and the rewards take it;
        a mean over heads.
    image_mass_before_RL: the same with the query one token earlier, out of which the token is predicted.
    """

    ids_R: Tensor
    log_probs_R: Tensor
    blind_log_probs_R: Tensor
    image_mass_RL: Tensor
    image_mass_before_RL: Tensor

    @property
    def dependence_R(self) -> Tensor:
        """log p(token | image) - log p(token | masked image)."""
        return self.log_probs_R - self.blind_log_probs_R


@torch.inference_mode()
def measure_blind(
    network: PreTrainedModel,
    samples: Sequence[Conversation],
    processor,
    blind: BlindSettings,
    *,
    layers: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> tuple[HeadAttention, list[ResponseTokens | None]]:
    """Attention of the response tokens, as `measure` gives it with `queries="response"`, and the tokens themselves.

    Args:
        network: a model as `load_network` gives it.
        samples: with their responses: `load_samples(path, "response")`.
        processor: the model's processor of transformers.
        blind: how the images of the second pass are masked.
        layers: indices of decoder layers; None for all of the language model.
        batch_size: samples per forward pass, of similar length; None for as many as memory allows.

    Returns:
        Both in the order of `samples`. None stands for a sample without an image or without a response.

    Raises:
        ValueError: as in `measure`.
    """
    markup = Markup.from_tokenizer(processor.tokenizer)

    def forward(batch: list[Conversation]) -> tuple[HeadAttention, list[ResponseTokens | None]]:
        return _measure_batch(network, batch, processor, markup, blind, layers)

    found, order = in_batches(network, samples, processor, batch_size, forward)
    by_place = dict(zip(order, (tokens for _, batch in found for tokens in batch), strict=True))
    return in_order([heads for heads, _ in found], order), [by_place[place] for place in range(len(samples))]


def _measure_batch(
    network, samples: list[Conversation], processor, markup: Markup, blind: BlindSettings, layers
) -> tuple[HeadAttention, list[ResponseTokens | None]]:
    batch = encode(samples, processor, markup, "response", network.device)
    own_BQ = batch.positions_BQ
    both_BQ = torch.cat([own_BQ, (own_BQ - 1).clamp(min=-1)], dim=1)
    spans_BST = vas_spans(batch.roles_BT, valid_BT=batch.valid_BT)
    with record_span_mass(network, spans_BST, layers=layers, query_positions=both_BQ, valid=batch.valid_BT) as record:
        clean_X = _log_probs(network, batch.inputs, own_BQ)
    mass_LBSHQ = record.stack()
    heads = head_attention(mass_LBSHQ[..., : own_BQ.shape[1]], own_BQ, batch.roles_BT)
    if not heads.seen_N.any():
        return heads, [None for _ in samples]
    blind_X = _log_probs(network, _blinded(batch, samples, processor, blind), own_BQ)
    row_X, query_X = (own_BQ >= 0).nonzero(as_tuple=True)
    own_BQL, before_BQL = mass_LBSHQ[:, :, 0].double().mean(2).permute(1, 2, 0).split(own_BQ.shape[1], dim=1)
    columns = (
        batch.inputs["input_ids"][row_X, own_BQ[row_X, query_X]],
        clean_X,
        blind_X,
        own_BQL[row_X, query_X],
        before_BQL[row_X, query_X],
    )
    sizes = (own_BQ >= 0).sum(1).tolist()
    rows = zip(heads.seen_N.tolist(), *(column.cpu().split(sizes) for column in columns), strict=True)
    return heads, [ResponseTokens(*parts) if seen else None for seen, *parts in rows]


def _blinded(batch: Encoded, samples: list[Conversation], processor, blind: BlindSettings) -> dict[str, Any]:
    """The model's arguments with masked images."""
    ids, inputs = batch.inputs["input_ids"], batch.inputs
    pixels = mask_pixels(
        inputs["pixel_values"],
        inputs["image_grid_thw"],
        [response_seed(row[valid], blind.seed) for row, valid in zip(ids, batch.valid_BT, strict=True)],
        blind,
        PatchFormat.of(processor.image_processor),
        images_per_row=[len(sample.images) for sample in samples],
    )
    return {**inputs, "pixel_values": pixels}


def _log_probs(network: Any, inputs, positions_BQ: Tensor) -> Tensor:
    """log p of the tokens at `positions_BQ` (padded with -1), row after row, float64 (X,).

    The logits of a whole batch are never in memory.
    """
    hidden_BTD = network.model(**inputs, use_cache=False).last_hidden_state
    row_X, query_X = (positions_BQ >= 0).nonzero(as_tuple=True)
    at_X = positions_BQ[row_X, query_X]
    hidden_XD, ids_X = hidden_BTD[row_X, at_X - 1], inputs["input_ids"][row_X, at_X]
    parts = [
        network.lm_head(hidden).float().log_softmax(-1).gather(-1, ids[:, None])[:, 0].double()
        for hidden, ids in zip(hidden_XD.split(_AT_ONCE), ids_X.split(_AT_ONCE), strict=True)
    ]
    return torch.cat(parts)
