"""Checks of the policy loss that a GRPO stage chooses among verl's: what verl would find out in the first update."""

from omegaconf import DictConfig

_CLIP_RATIO = 0.2  # verl's default of actor.clip_ratio


def check_policy_loss(config: DictConfig) -> None:
    """Checks that verl has the policy loss, that it leaves the actor its pass before each step, and that no setting of
    it is passed over in silence.

    Raises:
        ValueError: names the setting at fault.
    """
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    actor = config.actor_rollout_ref.actor
    mode, key = actor.policy_loss.loss_mode, "actor_rollout_ref.actor.policy_loss"
    if mode not in POLICY_LOSS_REGISTRY:
        raise ValueError(f"{key}.loss_mode={mode}: verl has {', '.join(sorted(POLICY_LOSS_REGISTRY))}")
    if mode == "bypass_mode" or config.algorithm.rollout_correction.bypass_mode:
        setting = f"{key}.loss_mode" if mode == "bypass_mode" else "algorithm.rollout_correction.bypass_mode"
        raise ValueError(
            f"{setting}={mode if mode == 'bypass_mode' else True}: it skips the actor's pass over the responses, which "
            "the start-up guard, attention rewards and token weights need; choose another"
        )
    if mode == "dro" and not actor.policy_loss.dro_beta:
        raise ValueError(f"{key}.loss_mode=dro needs {key}.dro_beta above 0")
    low, high = actor.clip_ratio_low, actor.clip_ratio_high
    if None not in (low, high) and actor.clip_ratio not in (_CLIP_RATIO, low, high):
        raise ValueError(
            f"actor_rollout_ref.actor.clip_ratio={actor.clip_ratio} is not read beside clip_ratio_low={low} and "
            f"clip_ratio_high={high}: set those"
        )
