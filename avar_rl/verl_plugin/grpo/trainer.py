"""verl's synchronous GRPO trainer with attention rewards (PAPER §6), a start-up guard and the curves of every part.

Text rewards are computed by verl's reward workers during the rollout. Attention exists only when the actor runs over
prompt and response, in the old-log-prob pass: the engine records there, and the attention rewards are scored, combined
with the text rewards and written to `rm_scores` before the advantage.
"""

import functools
import time

import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from avar_rl.verl_plugin.config.settings import GRPOSettings, parse
from avar_rl.verl_plugin.engine import MASS_REQUEST
from avar_rl.verl_plugin.grpo import advantages
from avar_rl.verl_plugin.grpo.arrivals import require_all_responses
from avar_rl.verl_plugin.grpo.guard import check_agreement
from avar_rl.verl_plugin.grpo.scoring import Arrived, score, unflatten
from avar_rl.verl_plugin.grpo.watchdog import Watchdog
from avar_rl.verl_plugin.scored_batch import ScoredBatch
from avar_rl.verl_plugin.watch import console
from avar_rl.verl_plugin.watch.metrics import reward_metrics
from avar_rl.verl_plugin.watch.ray_metrics import MetricsExporter
from avar_rl.verl_plugin.watch.record import RolloutRecorder

_MASSES = ("image_mass", "system_mass")


class AnchoredGRPOTrainer(PPOTrainerSync):
    """Registered in place of verl's "sync" trainer: verl compares that very string in six places."""

    def __init__(self, config):
        self.settings: GRPOSettings = parse(GRPOSettings, config)
        self.rewards = self.settings.reward_set()
        self.watchdog = Watchdog(self.settings.guard.step_minutes)
        self.recorder = RolloutRecorder(self.settings.rollouts)
        self.exporter = MetricsExporter(run=config.trainer.experiment_name)
        self._agreement_checked = False
        super().__init__(config)

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
        print(console.line(global_steps, metrics, console.GRPO), flush=True)
        print(console.rewards(metrics, self.rewards.weights), flush=True)
        self.exporter.set(metrics)

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int):
        self._asked_prompts = sample_batch_size
        return super()._step_once(metrics, timing_raw, sample_batch_size)

    def _balance_batch(self, batch, metrics: dict):
        """The first thing after sampling: what arrived is counted before verl fills up what is missing."""
        per_prompt = self.config.actor_rollout_ref.rollout.n
        require_all_responses(batch.keys, prompts=self._asked_prompts, per_prompt=per_prompt, step=self.global_steps)
        return super()._balance_batch(batch, metrics)

    def _compute_old_log_prob(self, batch, metrics: dict):
        if self.rewards.needs_attention:
            batch.extra_info[MASS_REQUEST] = self.settings.attention
        batch = super()._compute_old_log_prob(batch, metrics)
        batch.extra_info.pop(MASS_REQUEST, None)
        if not self._agreement_checked:
            check_agreement(metrics, self.settings.guard, self.config.actor_rollout_ref.rollout.dtype)
            self._agreement_checked = True
        return batch

    def _compute_advantage(self, batch, metrics: dict):
        started = time.perf_counter()
        scored = self._score(batch)
        self._write_totals(batch, scored)
        metrics.update(reward_metrics(scored))
        metrics["timing_s/combine_rewards"] = time.perf_counter() - started
        self._record(batch, scored, metrics)
        batch = super()._compute_advantage(batch, metrics)
        self._finish_advantages(batch, scored)
        return batch

    def _score(self, batch) -> ScoredBatch:
        """Every real response of the batch with all its parts. Raises as `scoring.score` does."""
        recorded = self.rewards.needs_attention
        fields = ["uid", "responses", "response_mask", "extra_fields", *(_MASSES if recorded else ())]
        real = [i for i, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
        keys = [batch.keys[i] for i in real]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
        columns = {name: list(data[name].unbind()) for name in ("responses", "response_mask", *fields[4:])}
        uids, extra_fields = list(data["uid"]), list(data["extra_fields"])
        arrived = []
        for i, ids_T in enumerate(columns["responses"]):
            masses = {f"{name}_TL": unflatten(columns[name][i], len(ids_T)) for name in fields[4:]}
            text = self.tokenizer.decode(ids_T, skip_special_tokens=True)
            mask_T = columns["response_mask"][i].bool()
            arrived.append(Arrived(keys[i], uids[i], text, ids_T, mask_T, extra_fields[i], **masses))
        limit = int(self.config.data.max_response_length)
        return score(arrived, self.rewards, step=self.global_steps, on_error=self.settings.on_reward_error, limit=limit)

    def _record(self, batch, scored: ScoredBatch, metrics: dict) -> None:
        def prompts(keys):
            data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["raw_prompt"])
            return list(data["raw_prompt"])

        started = time.perf_counter()
        decode = functools.partial(self.tokenizer.decode, clean_up_tokenization_spaces=False)
        self.recorder.write(scored, decode, prompts)
        metrics["timing_s/rollout_record"] = time.perf_counter() - started

    def _write_totals(self, batch, scored: ScoredBatch) -> None:
        """Totals on each response's last token; a masked response becomes a group of its own, out of the mean."""
        keys = [response.key for response in scored.responses]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["rm_scores"])
        rows = [torch.zeros_like(row) for row in data["rm_scores"].unbind()]
        for row, response in zip(rows, scored.responses, strict=True):
            row[-1] = response.total
        fields = {"rm_scores": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}
        tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(keys)))
        if masked := [response for response in scored.responses if response.masked]:
            alone = list_of_dict_to_tensordict([{"uid": f"masked-{r.key}"} for r in masked])
            tq.kv_batch_put(keys=[r.key for r in masked], partition_id=batch.partition_id, fields=alone)

    def _finish_advantages(self, batch, scored: ScoredBatch) -> None:
        """verl's advantages, or those by part; none for masked responses and groups without a signal."""
        groups = self.settings.groups
        keys = [response.key for response in scored.responses]
        data = tq.kv_batch_get(
            keys=keys, partition_id=batch.partition_id, select_fields=["advantages", "response_mask"]
        )
        rows = list(data["advantages"].unbind())
        if groups.normalise == "parts":
            by_std = self.config.algorithm.norm_adv_by_std_in_grpo
            rows = advantages.by_part(scored, list(data["response_mask"].unbind()), by_std=by_std)
        rows = advantages.silenced(rows, scored, advantages.silent_groups(scored, groups))
        fields = {"advantages": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}
        tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(keys)))


TRAINER_REGISTRY["sync"] = AnchoredGRPOTrainer
