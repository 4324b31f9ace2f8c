"""verl's synchronous GRPO trainer with attention rewards (arXiv 2603.03825, stage 3), a start-up guard and the curves
of every part.

Text rewards are computed by verl's reward workers during the rollout. Attention exists only when the actor runs over
prompt and response, in the old-log-prob pass: the engine records there, and the attention rewards are scored, combined
with the text rewards and written to `rm_scores` before the advantage. A blind pass (`avar.blind`) runs right after it,
under the same weights. Terms of the loss beside verl's are asked of the engine with each update.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

from avar_rl.attention.roles import Markup
from avar_rl.runtime.console import tell
from avar_rl.verl_plugin.config.settings import GRPOSettings, parse
from avar_rl.verl_plugin.forward.request import (
    MASS_COLUMNS,
    NOTHING,
    REQUEST,
    ForwardRequest,
    recording,
    update_request,
)
from avar_rl.verl_plugin.grpo.advantage_step import Signal, compute_advantages
from avar_rl.verl_plugin.grpo.arrivals import share_missing
from avar_rl.verl_plugin.grpo.evidence import write_evidence
from avar_rl.verl_plugin.grpo.guard import CHECKED_STEPS, check_agreement
from avar_rl.verl_plugin.grpo.stoppable import StoppableTrainer
from avar_rl.verl_plugin.grpo.watchdog import Watchdog
from avar_rl.verl_plugin.health import last_words
from avar_rl.verl_plugin.watch import console
from avar_rl.verl_plugin.watch.constant_parts import ConstantParts
from avar_rl.verl_plugin.watch.ray_metrics import MetricsExporter
from avar_rl.verl_plugin.watch.record import RolloutRecorder

NOTHING_ARRIVED = "no materializable trajectories"  # of verl's error (replay_buffer.py:511)


class AnchoredGRPOTrainer(StoppableTrainer):
    """Registered in place of verl's "sync" trainer: verl compares that very string in six places."""

    def __init__(self, config):
        self.settings: GRPOSettings = parse(GRPOSettings, config)
        self.rewards = self.settings.reward_set()
        self.update_request = update_request(self.settings)
        self.watchdog = Watchdog(self.settings.guard.step_minutes, leave_words=last_words.leave)
        self.constant_parts = ConstantParts(self.rewards.weights, self.rewards.gates)
        self.exporter = MetricsExporter(run=config.trainer.experiment_name)
        self._agreements = 0  # steps of this run in which rollout and actor were compared
        super().__init__(config, notice=self.settings.guard.notice_seconds)

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        self.signal = Signal(
            settings=self.settings,
            rewards=self.rewards,
            weights=self.settings.token_weight_set(),
            recorder=RolloutRecorder(self.settings.rollouts),
            decode=self.tokenizer.decode,
            image_start=Markup.from_tokenizer(self.tokenizer).vision_start,
            by_std=self.config.algorithm.norm_adv_by_std_in_grpo,
        )

    def _build_replay_buffer(self) -> ReplayBuffer:
        buffer = super()._build_replay_buffer()
        if self.settings.profile == "cpu":
            buffer.poll_interval = 0.05  # verl polls every 2 s, longer than a whole rollout of a miniature
        return buffer

    def on_step_begin(self) -> None:
        self.watchdog.reset()
        super().on_step_begin()

    def _compute_metrics(self, batch, metrics: dict, timing_raw, global_steps: int, epoch: int) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps=global_steps, epoch=epoch)
        tell(console.line(global_steps, metrics, console.GRPO))
        tell(console.rewards(metrics, self.rewards.weights))
        for sentence in self.constant_parts.add(metrics):
            tell(f"warning: {sentence}")
        self.exporter.set(metrics)

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int):
        self._asked_prompts = sample_batch_size
        try:
            return super()._step_once(metrics, timing_raw, sample_batch_size)
        except RuntimeError as error:
            if NOTHING_ARRIVED in str(error):  # verl advises a setting that would ask a dead worker again, for ever
                self._share_missing(())
            raise

    def _share_missing(self, keys: Sequence[str]) -> float:
        return share_missing(
            keys,
            prompts=self._asked_prompts,
            per_prompt=self.config.actor_rollout_ref.rollout.n,
            step=self.global_steps,
            on_missing=self.settings.on_missing,
        )

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args, **kwargs) -> KVBatchMeta:
        """The first thing after sampling: what arrived is counted before verl fills up what is missing."""
        metrics["reward_rate/missing"] = self._share_missing(batch.keys)
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if "region" in self.signal.needs or self.update_request.region:
            write_evidence(batch)
        _extra_info(batch)[REQUEST] = recording(self.settings, self.signal.needs)
        batch = super()._compute_old_log_prob(batch, metrics)
        _extra_info(batch).pop(REQUEST, None)
        if self._agreements < CHECKED_STEPS:
            dtype = self.config.actor_rollout_ref.rollout.dtype
            check_agreement(metrics, self.settings.guard, dtype, self.global_steps)
            self._agreements += 1
        if self.settings.blind is not None:
            started = time.perf_counter()
            self._run_blind_pass(batch, ForwardRequest(blind=self.settings.blind))
            metrics["timing_s/blind_log_prob"] = time.perf_counter() - started
        return batch

    def _run_blind_pass(self, batch: KVBatchMeta, request: ForwardRequest) -> None:
        """The old-log-prob pass once more: the actor writes the blind log-probabilities of every row to the queue."""
        temperature = self.config.actor_rollout_ref.rollout.temperature
        asked = {"calculate_entropy": False, "compute_loss": False, "temperature": temperature, REQUEST: request}
        fields = batch.fields and [name for name in batch.fields if name not in MASS_COLUMNS]  # they are large
        self.actor_rollout_wg.compute_log_prob(replace(batch, fields=fields, extra_info=asked))

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        stock = super()._compute_advantage
        return compute_advantages(batch, metrics, self.signal, stock=stock, step=self.global_steps)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.update_request is not NOTHING:
            _extra_info(batch)[REQUEST] = self.update_request
        batch = super()._update_actor(batch, metrics)
        _extra_info(batch).pop(REQUEST, None)
        return batch


def _extra_info(batch: KVBatchMeta) -> dict[str, Any]:
    assert batch.extra_info is not None, "verl writes its own settings there"
    return batch.extra_info


TRAINER_REGISTRY["sync"] = AnchoredGRPOTrainer
