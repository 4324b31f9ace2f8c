"""One step of GRPO from responses to advantages: rewards, our changes of advantages, curves, the rollout record.

verl keeps the rows of a step in its transfer queue; they are read and written there.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transfer_queue import KVBatchMeta

from avar_rl.verl_plugin.config.settings import GRPOSettings
from avar_rl.verl_plugin.forward.blind import BLIND_LOG_PROBS
from avar_rl.verl_plugin.forward.losses import RIGHT
from avar_rl.verl_plugin.forward.request import recording
from avar_rl.verl_plugin.grpo import advantages
from avar_rl.verl_plugin.grpo.arrivals import require_images, require_whole
from avar_rl.verl_plugin.grpo.queue import Rows, real_rows
from avar_rl.verl_plugin.grpo.scoring import Arrived, score
from avar_rl.verl_plugin.grpo.weighing import weighed
from avar_rl.verl_plugin.scored_batch import ScoredBatch
from avar_rl.verl_plugin.watch.metrics import reward_metrics, weight_metrics
from avar_rl.verl_plugin.watch.record import RolloutRecorder
from rewards.combine import RewardSet
from rewards.sample import Masses, Tokens
from rewards.weigh import TokenWeightSet

Decode = Callable[..., str]  # a tokenizer's
LOG_PROBS = ("rollout_log_probs", "old_log_probs")  # the rollout's, and the actor's before the step


@dataclass(frozen=True)
class Signal:
    """What turns the responses of every step of a run into advantages.

    image_start: the token that an image begins with in a prompt.
    by_std: whether advantages by part are divided by the group's standard deviation.
    """

    settings: GRPOSettings
    rewards: RewardSet
    weights: TokenWeightSet
    recorder: RolloutRecorder
    decode: Decode
    image_start: int
    by_std: bool

    @property
    def needs(self) -> frozenset[str]:
        """What is measured before a step's advantages, of `rewards.finding.NEEDS`."""
        return self.rewards.needs | self.weights.needs


def compute_advantages(
    batch: KVBatchMeta,
    metrics: dict[str, Any],
    signal: Signal,
    *,
    stock: Callable[[KVBatchMeta, dict[str, Any]], KVBatchMeta],
    step: int,
) -> KVBatchMeta:
    """Scores a step's responses and writes `rm_scores` and `advantages` of its rows, and `right` for loss terms.

    Args:
        batch: the step's rows, after the rollout and the old-log-prob pass.
        metrics: the step's curves, which are added to.
        stock: verl's own step from `rm_scores` to `advantages`.

    Raises:
        MissingResponsesError: masses, log-probabilities or images of some response did not arrive.
        RewardError, RuntimeError: see `scoring.score`.
        TokenWeightError: see `weighing.weighed`.
    """
    rows = real_rows(batch)
    with _timed(metrics, "combine_rewards"):
        arrived = _arrived(rows, signal, step)
        scored = score(arrived, signal.rewards, step=step, on_error=signal.settings.on_reward_error)
        _check_images(rows, scored, signal.image_start)
        _write_totals(rows, batch, scored)
        if signal.settings.losses:
            _write_right(batch, scored)
        metrics.update(reward_metrics(scored))
    batch = stock(batch, metrics)
    found = _grouped(rows, scored, signal)
    if signal.weights.names:
        with _timed(metrics, "token_weights"):
            masks = [response.mask_T for response in arrived]
            found, scored, said = weighed(found, masks, scored, signal.weights, signal.settings.on_reward_error)
            metrics.update(weight_metrics(said))
    rows.write_tensors("advantages", found)
    with _timed(metrics, "rollout_record"):
        signal.recorder.write(
            scored,
            functools.partial(signal.decode, clean_up_tokenization_spaces=False),
            lambda keys: Rows(keys, batch).read(["raw_prompt"]).objects("raw_prompt"),
        )
    return batch


@contextmanager
def _timed(metrics: dict[str, Any], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    metrics[f"timing_s/{name}"] = time.perf_counter() - started


def _arrived(rows: Rows, signal: Signal, step: int) -> list[Arrived]:
    """Every response of the step as it lies in the queue. MissingResponsesError: see `require_whole`."""
    mass_columns = recording(signal.settings, signal.needs).mass_columns
    log_prob_columns = LOG_PROBS if signal.settings.blind is None else (*LOG_PROBS, BLIND_LOG_PROBS)
    columns = ["uid", "responses", "response_mask", "extra_fields", "entropy", *log_prob_columns, *mass_columns]
    data = rows.read(columns)
    masses: list[Masses | None] = [None] * len(rows.keys)
    ids, flat = data.tensors("responses"), {name: data.tensors(name) for name in mass_columns}
    log_probs = {name: data.tensors(name) for name in log_prob_columns}
    require_whole(rows.keys, [len(ids_T) for ids_T in ids], log_probs, flat, step)
    if mass_columns:
        columns_of = zip(ids, *flat.values(), strict=True)
        masses = [Masses(*(values.reshape(len(ids_T), -1) for values in found)) for ids_T, *found in columns_of]
    tokens = _tokens(log_probs, data.tensors("entropy"))
    masks = [mask_T.bool() for mask_T in data.tensors("response_mask")]
    texts = [signal.decode(ids_T, skip_special_tokens=True) for ids_T in ids]
    uids, extra_fields = data.objects("uid"), data.objects("extra_fields")
    found = zip(rows.keys, uids, texts, ids, masks, extra_fields, tokens, masses, strict=True)
    return [Arrived(*columns) for columns in found]


def _tokens(log_probs: Mapping[str, Sequence[Tensor]], entropies: Sequence[Tensor]) -> list[Tokens]:
    """What is known of every token; its dependence is the log-probability that it loses by the masked images."""
    clean = [values_T.float() for values_T in log_probs["old_log_probs"]]
    blind: Sequence[Tensor | None] = log_probs.get(BLIND_LOG_PROBS, [None] * len(clean))
    return [
        Tokens(clean_T, entropy_T, None if blind_T is None else clean_T - blind_T.float())
        for clean_T, entropy_T, blind_T in zip(clean, entropies, blind, strict=True)
    ]


def _check_images(rows: Rows, scored: ScoredBatch, image_start: int) -> None:
    prompts = rows.read(["prompts"]).tensors("prompts")
    asked = [len(response.sample.image_sizes) for response in scored.responses]
    require_images(rows.keys, asked, [int((ids_T == image_start).sum()) for ids_T in prompts], scored.step)


def _write_totals(rows: Rows, batch: KVBatchMeta, scored: ScoredBatch) -> None:
    """Totals on each response's last token; a masked response becomes a group of its own, out of the mean."""
    totals = [torch.zeros_like(row_T) for row_T in rows.read(["rm_scores"]).tensors("rm_scores")]
    for row_T, response in zip(totals, scored.responses, strict=True):
        row_T[-1] = response.total
    rows.write_tensors("rm_scores", totals)
    if masked := [response.key for response in scored.responses if response.masked]:
        Rows(masked, batch).write_objects([{"uid": f"masked-{key}"} for key in masked])


def _write_right(batch: KVBatchMeta, scored: ScoredBatch) -> None:
    """Of every row, verl's filler rows too (a worker reads the same columns of all): is the accuracy above 0?"""
    right = {response.key for response in scored.responses if (response.accuracy or 0.0) > 0}
    rows = Rows(batch.keys, batch)
    rows.write_tensors(RIGHT, [torch.tensor([float(key in right)]) for key in rows.keys])


def _grouped(rows: Rows, scored: ScoredBatch, signal: Signal) -> list[Tensor]:
    """verl's advantages, or those by part; none for masked responses and groups without a signal."""
    data, groups = rows.read(["advantages", "response_mask"]), signal.settings.groups
    found = data.tensors("advantages")
    if groups.normalise == "parts":
        found = advantages.by_part(scored, data.tensors("response_mask"), by_std=signal.by_std)
    return advantages.silenced(found, scored, advantages.silent_groups(scored, groups))
