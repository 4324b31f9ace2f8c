"""verl's synchronous GRPO trainer with the visual reward (PAPER §6), a start-up guard and per-part metrics.

Text rewards are computed by verl's reward workers during the rollout. Attention exists only when the actor runs over
prompt and response, in the old-log-prob pass: the engine records there, and the visual part is added to `rm_scores`
before the advantage.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from avar_rl.verl_plugin import console
from avar_rl.verl_plugin.engine import VISUAL_REQUEST
from avar_rl.verl_plugin.settings import GRPOSettings, parse
from avar_rl.verl_plugin.startup_guard import check_agreement
from avar_rl.verl_plugin.watchdog import Watchdog
from rewards.visual import visual_reward

_MASSES = ("visual_score", "image_mass", "system_mass")


class AnchoredGRPOTrainer(PPOTrainerSync):
    """Registered in place of verl's "sync" trainer: verl compares that very string in six places."""

    def __init__(self, config):
        self.settings: GRPOSettings = parse(GRPOSettings, config)
        self.watchdog = Watchdog(self.settings.guard.step_minutes)
        self._agreement_checked = False
        super().__init__(config)

    def on_step_begin(self) -> None:
        self.watchdog.reset()
        super().on_step_begin()

    def _compute_metrics(self, batch, metrics: dict, timing_raw, global_steps: int, epoch: int) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps=global_steps, epoch=epoch)
        print(console.line(global_steps, metrics, console.GRPO), flush=True)

    def _compute_old_log_prob(self, batch, metrics: dict):
        if self.settings.reward.visual:
            batch.extra_info[VISUAL_REQUEST] = self.settings.visual
        batch = super()._compute_old_log_prob(batch, metrics)
        batch.extra_info.pop(VISUAL_REQUEST, None)
        if not self._agreement_checked:
            check_agreement(metrics, self.settings.guard, self.config.actor_rollout_ref.rollout.dtype)
            self._agreement_checked = True
        return batch

    def _compute_advantage(self, batch, metrics: dict):
        started = time.perf_counter()
        totals = self._combine_rewards(batch, metrics)
        metrics["timing_s/combine_rewards"] = time.perf_counter() - started
        batch = super()._compute_advantage(batch, metrics)
        self._zero_equal_groups(batch, totals)
        return batch

    def _combine_rewards(self, batch, metrics: dict) -> np.ndarray:
        """Adds the gated visual part to each response's last token; logs each part. Returns the totals (B,)."""
        weights = self.settings.reward
        fields = ["uid", "rm_scores", "extra_fields", "response_mask"] + (list(_MASSES) if weights.visual else [])
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        real = np.array([not tag.get("is_padding", False) for tag in batch.tags])
        scores = list(data["rm_scores"].unbind())
        parts = _text_parts(list(data["extra_fields"]), real)
        if weights.visual:
            parts |= _visual_parts(data, parts["accuracy"], real)
            scores = [_add_to_last(s, weights.visual * v) for s, v in zip(scores, parts["visual"], strict=True)]
            fields = {"rm_scores": torch.nested.as_nested_tensor(scores, layout=torch.jagged)}
            tq.kv_batch_put(
                keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch))
            )
        totals = np.array([float(score.sum()) for score in scores])
        metrics.update(_part_metrics(parts | {"total": totals}, np.array(list(data["uid"])), real))
        return totals

    def _zero_equal_groups(self, batch, totals: np.ndarray) -> None:
        """Equal rewards carry no signal, but (r - mean) / std in fp32 turns rounding into advantages up to 0.15."""
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["uid", "advantages"])
        rows = _without_flat_groups(data["advantages"].unbind(), np.array(list(data["uid"])), totals)
        advantages = {"advantages": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}
        tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(advantages, batch_size=len(batch))
        )


def _text_parts(extra_fields: list[dict], real: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy and format as the reward manager scored them during the rollout, (B,) each; 0 for verl's filler rows."""
    infos = [fields.get("reward_extra_info", {}) if ok else {} for fields, ok in zip(extra_fields, real, strict=True)]
    missing = [i for i, info in enumerate(infos) if real[i] and "accuracy" not in info]
    if missing:
        raise RuntimeError(
            f"{len(missing)} responses carry no accuracy, so the visual reward cannot be gated: "
            "reward.reward_manager must be avar_rl's (see recipes/config/grpo.yaml)"
        )
    return {name: np.array([float(info.get(name, 0.0)) for info in infos]) for name in ("accuracy", "format")}


def _visual_parts(data: TensorDict, accuracy: np.ndarray, real: np.ndarray) -> dict[str, np.ndarray]:
    """Per response (B,): the gated visual reward, and the means of image and system mass over its tokens."""
    lengths = data["response_mask"].offsets().diff().tolist()
    masks = [mask.bool() for mask in data["response_mask"].unbind()]
    tails = {
        name: [row[len(row) - n :][m] for row, n, m in zip(data[name].unbind(), lengths, masks, strict=True)]
        for name in _MASSES
    }
    means = {name: np.array([float(t.mean()) if len(t) else 0.0 for t in rows]) for name, rows in tails.items()}
    if not (means["system_mass"][real] > 0).any():
        raise RuntimeError("the actor's forward recorded no span masses at all; the visual reward would be a constant")
    visual = [visual_reward(t, correct=a > 0) for t, a in zip(tails["visual_score"], accuracy, strict=True)]
    return {"visual": np.array(visual), "image_mass": means["image_mass"], "system_mass": means["system_mass"]}


def _add_to_last(score_T: torch.Tensor, value: float) -> torch.Tensor:
    score_T = score_T.clone()
    score_T[-1] += value
    return score_T


def _without_flat_groups(rows: Sequence[torch.Tensor], uids: np.ndarray, totals: np.ndarray) -> list[torch.Tensor]:
    """The advantages (T,) of each response, zeroed where all responses of its group have the same total."""
    flat = {uid for uid in np.unique(uids) if np.ptp(totals[uids == uid]) == 0.0}
    return [torch.zeros_like(row) if uid in flat else row for uid, row in zip(uids, rows, strict=True)]


def _part_metrics(parts: dict[str, np.ndarray], uids: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """One curve a part, and the share of groups whose accuracy has no spread (there the visual part alone decides)."""
    metrics = {}
    for name, values in parts.items():
        prefix = "attention" if name.endswith("_mass") else "reward"
        metrics[f"{prefix}/{name}"] = float(values[real].mean())
    accuracy, groups = parts["accuracy"][real], uids[real]
    spreads = [np.ptp(accuracy[groups == group]) for group in np.unique(groups)]
    metrics["reward/groups_without_accuracy_spread"] = float(np.mean(np.array(spreads) == 0.0))
    if "visual" in parts and (accuracy > 0).any():
        metrics["reward/visual_of_correct"] = float(parts["visual"][real][accuracy > 0].mean())
    return metrics


TRAINER_REGISTRY["sync"] = AnchoredGRPOTrainer
