"""Whether a recipe gives its rewards, token weights and losses what they need, before anything starts."""

from omegaconf import DictConfig

from avar_rl.verl_plugin.config.recipe import without_our_pass
from avar_rl.verl_plugin.config.settings import GRPOSettings


def refuse_missing_blind(config: DictConfig, ours: GRPOSettings) -> None:
    """Refuses plug-ins that need a blind pass where there is none, and settings under which there could be none.

    Raises:
        ValueError: names the plug-in and `avar.blind`, or the setting.
    """
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


def prepare_losses(config: DictConfig, ours: GRPOSettings) -> None:
    """Refuses loss terms that an update could not have, and switches verl's entropies on where one needs them (which
    change nothing by themselves: their weight is `entropy_coeff`).

    Raises:
        ValueError: names the terms and the setting.
    """
    losses = ours.loss_set()
    if not losses.names:
        return
    distillation = config.get("distillation") or {}
    refused = without_our_pass(config) | {
        "distillation.enabled=True has a loss of its own": distillation.get("enabled", False),
        "no reward says which responses are right; list accuracy in avar.rewards (weight 0 only reports it)": (
            "right" in losses.needs and "accuracy" not in ours.reward_set().weights
        ),
    }
    for reason, applies in refused.items():
        if applies:
            raise ValueError(f"avar.losses adds {', '.join(losses.names)} to the actor's loss, but {reason}")
    if "entropy" in losses.needs:
        config.actor_rollout_ref.actor.calculate_entropy = True
