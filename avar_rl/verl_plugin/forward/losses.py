"""verl's policy loss of a micro-batch, plus the terms of `avar.losses`:

    L = L_policy + sum over the terms of weight * mean(term)

verl adds up the losses of micro-batches and averages gradients over ranks, so each part is what this micro-batch adds
to a mean over the global batch, times the number of ranks. A term of (N, T) is averaged as the policy loss is, by
verl's own function in `actor.loss_agg_mode`; one of (N,) over the sequences of the global batch, verl's filler rows
included, as verl counts them.

Shapes: N sequences of the micro-batch, T response tokens (padded), L recorded layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from verl.trainer.ppo.core_algos import agg_loss
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import ActorConfig
from verl.workers.utils.padding import no_padding_2_padding

from avar_rl.verl_plugin.forward.blind import images_per_row
from avar_rl.verl_plugin.forward.layout import EVIDENCE, rows_of
from rewards.losses import ActorLossSet
from rewards.sample import LossBatch

RIGHT = "right"  # column: 1 where the accuracy reward is above 0, one number a row
Outputs = Mapping[str, Tensor]  # of a forward pass, nested, by verl's names


@dataclass(frozen=True)
class LossWithTerms:
    """A loss function of verl's engine: verl's own for the policy, and terms beside it.

    policy: verl's, `functools.partial(ppo_loss, config=…)`, whose configuration says how tokens are averaged.
    blind: the outputs of a pass over the micro-batch with masked images; None: no term needs them.
    """

    policy: Any
    terms: ActorLossSet
    blind: Callable[[TensorDict], Outputs] | None = None

    def __call__(
        self, model_output: Outputs, data: TensorDict, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, Metric]]:
        """The loss of a micro-batch, and verl's metrics with `actor/loss_NAME` for each weighted term.

        Raises:
            RuntimeError: a term failed; see `ActorLossSet.values`.
        """
        loss, metrics = self.policy(model_output=model_output, data=data, dp_group=dp_group)
        blind = None if self.blind is None else self.blind(data)
        batch = loss_batch(model_output, blind, data)
        for name, value in self.terms.values(batch).items():
            part = self.terms.weights[name] * _mean(value, batch.response_mask_NT, self.policy.keywords["config"])
            metrics[f"actor/loss_{name}"] = Metric(value=part, aggregation=AggregationType.SUM)
            loss = loss + part
        if batch.blind_log_probs_NT is not None:  # a term may leave it out in one rank, whose backward others wait for
            loss = loss + 0.0 * batch.blind_log_probs_NT.sum()
        return loss, metrics


def _mean(value: Tensor, mask_NT: Tensor, config: ActorConfig) -> Tensor:
    """What a micro-batch adds to a mean over the global batch, whose sizes verl leaves in the configuration."""
    sizes = config.global_batch_info
    if value.dim() == 1:
        return value.sum() / sizes["global_batch_size"] * sizes["dp_size"]
    return agg_loss(loss_mat=value, loss_mask=mask_NT, loss_agg_mode=config.loss_agg_mode, **sizes)


def loss_batch(model_output: Outputs, blind: Outputs | None, data: TensorDict) -> LossBatch:
    """What the terms are given of a micro-batch.

    Args:
        model_output: of the pass with the images as they are: `log_probs`, and what else was measured of `entropy`
            and, for each layer of a response token, `image_mass`, `system_mass`, `region_mass`.
        blind: `log_probs` and perhaps `entropy` of the pass with masked images.
        data: verl's columns of the micro-batch.
    """
    mask_NT = _padded(data["response_mask"]).bool()

    def of_tokens(outputs: Outputs | None, name: str) -> Tensor | None:
        found = None if outputs is None else outputs.get(name)
        return None if found is None else no_padding_2_padding(found, data).float()

    def of_layers(name: str) -> Tensor | None:
        found: Any = model_output.get(name)
        if found is None:
            return None
        column: Any = data["response_mask"]
        return _padded(found, layers=len(found.values()) // len(column.values()))

    log_probs_NT = of_tokens(model_output, "log_probs")
    assert log_probs_NT is not None, "verl's policy loss needs them"
    return LossBatch(
        response_mask_NT=mask_NT,
        log_probs_NT=log_probs_NT,
        old_log_probs_NT=_padded(data["old_log_probs"]).float(),
        advantages_NT=_padded(data["advantages"]).float(),
        has_image_N=_has_image(data, mask_NT),
        has_region_N=_has_region(data, mask_NT),
        right_N=_right(data),
        entropy_NT=of_tokens(model_output, "entropy"),
        image_mass_NTL=of_layers("image_mass"),
        system_mass_NTL=of_layers("system_mass"),
        region_mass_NTL=of_layers("region_mass"),
        blind_log_probs_NT=of_tokens(blind, "log_probs"),
        blind_entropy_NT=of_tokens(blind, "entropy"),
    )


def _padded(column: Any, layers: int | None = None) -> Tensor:
    """A nested column of response tokens as (N, T), 0 where there is none; (N, T, L) of rows of T * L values."""
    rows = rows_of(column)
    if layers is not None:
        rows = [row.view(-1, layers) for row in rows]
    return pad_sequence(rows, batch_first=True)


def _has_image(data: TensorDict, like: Tensor) -> Tensor:
    inputs: Any = data.get("multi_modal_inputs", None)
    images = [0] * len(like) if inputs is None else images_per_row(inputs)
    return torch.tensor(images, device=like.device) > 0


def _has_region(data: TensorDict, like: Tensor) -> Tensor:
    boxes = rows_of(data[EVIDENCE]) if EVIDENCE in data.keys() else []
    found = [bool((row.view(-1, 5)[:, 0] >= 0).any()) for row in boxes] or [False] * len(like)
    return torch.tensor(found, device=like.device)


def _right(data: TensorDict) -> Tensor:
    return torch.stack([row.flatten()[0] for row in rows_of(data[RIGHT])]) > 0
