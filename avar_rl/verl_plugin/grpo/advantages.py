"""What is done to verl's GRPO advantages: groups that carry no signal get none, and each part its own scale by option.

Shapes: B responses, T response tokens (padded).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from avar_rl.verl_plugin.config.settings import GroupSettings
from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse


def silent_groups(scored: ScoredBatch, settings: GroupSettings) -> set[str]:
    """The uids of groups without a signal: one unmasked response, equal totals, or, by option, equal accuracies.

    Where advantages are normalised by part, equal parts stand for equal totals. Such groups get no advantage because
    (r - mean) / std of equal totals in fp32 turns rounding into advantages of up to 0.15, and because verl gives a lone
    response its reward as advantage.
    """
    silent = set()
    for uid, group in scored.groups().items():
        judged = [response for response in group if not response.masked]
        by_parts = settings.normalise == "parts"
        if len({tuple(r.score.weighted.values()) if by_parts else r.total for r in judged}) < 2:
            silent.add(uid)
        elif settings.mask_uniform_accuracy and len({response.accuracy for response in judged}) < 2:
            silent.add(uid)
    return silent


def silenced(advantages: Sequence[Tensor], scored: ScoredBatch, silent: set[str]) -> list[Tensor]:
    """The `advantages` (T,) of each response, 0 in the groups named in `silent` and where a response is masked."""
    pairs = zip(scored.responses, advantages, strict=True)
    return [torch.zeros_like(found_T) if r.masked or r.uid in silent else found_T for r, found_T in pairs]


def by_part(scored: ScoredBatch, masks: Sequence[Tensor], *, by_std: bool) -> list[Tensor]:
    """GDPO (arXiv 2601.05242), by verl's own function: parts are normalised within the group, then summed and whitened.

    verl 0.9.1's trainer does not hand the parts to its "gdpo" estimator, so we call it. Parts are centred in float64
    beforehand, which changes no advantage, so that a part without spread in a group adds exactly nothing.

    Args:
        masks: (T,) the tokens of each response that count.
        by_std: divide by the group's standard deviation.

    Returns: advantages (T,) of each response; 0 for masked ones.
    """
    from verl.trainer.ppo.core_algos import compute_gdpo_outcome_advantage

    judged = [i for i, response in enumerate(scored.responses) if not response.masked]
    advantages = [torch.zeros(len(mask)) for mask in masks]
    if not judged:
        return advantages
    responses = [scored.responses[i] for i in judged]
    mask_BT = torch.nn.utils.rnn.pad_sequence([masks[i].float() for i in judged], batch_first=True)
    names = [name for name, weight in scored.weights.items() if weight > 0]
    found_BT, _ = compute_gdpo_outcome_advantage(
        token_level_rewards=torch.zeros_like(mask_BT),
        response_mask=mask_BT,
        index=np.array([response.uid for response in responses], dtype=object),
        norm_adv_by_std_in_grpo=by_std,
        config={"gdpo_reward_keys": names, "gdpo_reward_weights": [scored.weights[name] for name in names]},
        non_tensor_batch=_centred_parts(responses, names, scored.weights),
        batch={"prompts": mask_BT[:, :0], "attention_mask": torch.ones_like(mask_BT, dtype=torch.long)},
    )
    for i, found_T in zip(judged, found_BT, strict=True):
        advantages[i] = found_T[: len(masks[i])]
    return advantages


def _centred_parts(
    responses: Sequence[ScoredResponse], names: Sequence[str], weights: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Gated, unweighted values of each part (B,), less their group's mean."""
    uids = np.array([response.uid for response in responses])
    parts = {}
    for name in names:
        values = np.array([response.score.weighted[name] / weights[name] for response in responses])
        for uid in set(uids.tolist()):
            group = values[uids == uid]
            values[uids == uid] = 0.0 if np.ptp(group) == 0 else group - group.mean()
        parts[name] = values
    return parts
