"""Whether a recipe gives its rewards, token weights and losses what they need, before anything starts."""

from collections.abc import Iterable

from omegaconf import DictConfig

from avar_rl.verl_plugin.config.settings import GRPOSettings
from rewards.finding import PlugIn


def check_plug_ins(config: DictConfig, ours: GRPOSettings) -> None:
    """Checks that what the plug-ins ask for is measured, and that verl's policy loss does not undo what they say.

    Raises:
        ValueError: names the plug-in, the setting at fault and the way out.
    """
    if ours.blind is None:
        refuse_blind_needs(ours.plug_ins())
    if ours.token_weights:
        _check_token_weights(config, ", ".join(term.name for term in ours.token_weights))


def refuse_blind_needs(plug_ins: Iterable[PlugIn]) -> None:
    """Refuses the first of `plug_ins` that needs a blind pass, for a recipe without one.

    Raises:
        ValueError: names the plug-in and `avar.blind`.
    """
    for plug_in in plug_ins:
        if "blind" in plug_in.needs:
            raise ValueError(
                f"{plug_in.kind.setting}.{plug_in.name} needs the blind pass, and avar.blind is null: set "
                "avar.blind={share: 0.6}, or leave it out"
            )


def _check_token_weights(config: DictConfig, names: str) -> None:
    mode = config.actor_rollout_ref.actor.policy_loss.loss_mode
    if mode == "geo_mean":
        raise ValueError(
            f"actor.policy_loss.loss_mode=geo_mean gives every token of a response the mean of their advantages, which "
            f"undoes avar.token_weights ({names}); take another policy loss, or no token weights"
        )
    if config.algorithm.rollout_correction.bypass_mode:
        raise ValueError(
            "algorithm.rollout_correction.bypass_mode=True skips the forward pass that measures what "
            f"avar.token_weights ({names}) go by; set it to False"
        )
