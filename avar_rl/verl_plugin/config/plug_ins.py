"""Whether a recipe gives its rewards, token weights and losses what they need, before anything starts."""

from omegaconf import DictConfig

from avar_rl.verl_plugin.config.recipe import without_our_pass
from avar_rl.verl_plugin.config.settings import GRPOSettings


def check_plug_ins(config: DictConfig, ours: GRPOSettings) -> None:
    """Checks that what the plug-ins ask for is measured, and that no setting undoes what they say.

    Raises:
        ValueError: names the plug-in, the setting at fault and the way out.
    """
    _refuse_missing_blind(config, ours)
    if ours.token_weights:
        _check_token_weights(config, ", ".join(term.name for term in ours.token_weights))
    if names := ours.loss_set().names:
        _check_losses(config, ours, ", ".join(names))


def _refuse_missing_blind(config: DictConfig, ours: GRPOSettings) -> None:
    """Plug-ins that need a blind pass where there is none, and settings under which there could be none."""
    if ours.blind is None:
        needing = [plug_in for plug_in in ours.plug_ins() if "blind" in plug_in.needs]
        if needing:
            kind, name = needing[0].kind, needing[0].name
            raise ValueError(
                f"the {kind.called} {name} ({kind.setting}.{name}) needs a blind pass, and avar.blind is null: set "
                "avar.blind={} (60 % of the patches become black), or take it out of the recipe"
            )
        return
    for reason, applies in without_our_pass(config).items():
        if applies:
            raise ValueError(f"avar.blind needs a pass of the actor before each step, but {reason} (or set it to null)")


def _check_token_weights(config: DictConfig, names: str) -> None:
    mode = config.actor_rollout_ref.actor.policy_loss.loss_mode
    if mode == "geo_mean":
        raise ValueError(
            f"actor.policy_loss.loss_mode=geo_mean gives every token of a response the mean of their advantages, which "
            f"undoes avar.token_weights ({names}); take another policy loss, or no token weights"
        )


def _check_losses(config: DictConfig, ours: GRPOSettings, names: str) -> None:
    losses, distillation = ours.loss_set(), config.get("distillation") or {}
    refused = without_our_pass(config) | {
        "distillation.enabled=True has a loss of its own": distillation.get("enabled", False),
        "no reward says which responses are right; list accuracy in avar.rewards (weight 0 only reports it)": (
            "right" in losses.needs and "accuracy" not in ours.reward_set().weights
        ),
    }
    for reason, applies in refused.items():
        if applies:
            raise ValueError(f"avar.losses adds {names} to the actor's loss, but {reason}")


def switch_on_entropy(config: DictConfig, ours: GRPOSettings) -> None:
    """Has verl compute entropies in the update where a loss term needs them; they change nothing by themselves (their
    weight is `entropy_coeff`)."""
    if "entropy" in ours.loss_set().needs:
        config.actor_rollout_ref.actor.calculate_entropy = True
