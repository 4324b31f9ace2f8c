"""The `avar:` block of a recipe, parsed once into frozen dataclasses; the rest of the configuration is verl's own."""

from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar

from omegaconf import DictConfig, OmegaConf
from pydantic import BeforeValidator, Field

from avar_rl.blind import BlindSettings
from avar_rl.guidance import GuidanceConfig
from avar_rl.runtime.layers import Layers
from avar_rl.runtime.settings import Count, Flag, NotNegative, Number, Positive, Whole, settings
from avar_rl.runtime.settings import parse as parse_settings
from rewards.combine import PAPER, RewardSet, Term, parse_terms
from rewards.finding import PlugIn, need_masses
from rewards.losses import ActorLossSet, LossTerm, parse_losses
from rewards.weigh import TokenWeightSet, WeightTerm, parse_weights

StageSettings = TypeVar("StageSettings")
Profile = Literal["cpu", "gpu"]


def _interval(value: Any) -> Any:
    if value == 0:
        raise ValueError("it must be at least 1; avar.rollouts.dir=null switches the record off")
    return value


@settings
class AttentionSettings:
    """What the actor's forward pass records for the attention rewards. Travels to the engine with each batch.

    layers: indices of the layers that are recorded; None for all.
    measure: masses and attention rewards are measured even where no attention reward has a weight.
    """

    layers: Layers | None = None
    measure: Flag = False


@settings
class GroupSettings:
    """How the responses to one question are compared.

    normalise: "total" compares the totals; "parts" normalises each part on its own within the group, then adds them up
        (GDPO, arXiv 2601.05242).
    mask_uniform_accuracy: groups whose accuracy has no spread get no advantage.
    """

    normalise: Literal["total", "parts"] = "total"
    mask_uniform_accuracy: Flag = False


@settings
class RolloutSettings:
    """The rollout record (`avar_rl.rollouts`): every response of a step with its parts and masses.

    dir: the directory of the record; None writes none.
    every: steps from one recorded step to the next.
    images: keep a copy of each image that is sampled, once.
    """

    dir: Annotated[str, Field(min_length=1)] | None = None
    every: Annotated[Count, BeforeValidator(_interval)] = 1
    images: Flag = True


@settings
class ImageSettings:
    """Images in the rollout.

    cache_mb: MB of processed images that each agent-loop worker keeps, so that a prompt's images are processed once and
        not again for each of its responses; 0 keeps none.
    """

    cache_mb: Annotated[Whole, Field(ge=0)] = 1024


@settings
class GuardSettings:
    """The start-up guard (rollout and actor must agree on the tokens' probabilities) and the limits in time.

    min_correlation: the correlation of the probabilities must be above this.
    max_difference_fp32: no probability may differ by this much where the rollout runs in float32.
    step_minutes: a step (or the start-up) that takes longer is a hang, and the run stops; 0 for no limit.
    total_minutes: wall-clock limit of the whole stage, which then stops as by SIGTERM; 0 for no limit.
    notice_seconds: what is left from a first SIGTERM or SIGINT to the end of the machine. A step that would not be
        finished and saved by then is given up, and the one before it saved at once; 0: the step is always finished.
    """

    min_correlation: Annotated[Number, Field(ge=-1, le=1)] = 0.99
    max_difference_fp32: Positive = 1e-3
    step_minutes: NotNegative = 30.0
    total_minutes: NotNegative = 0.0
    notice_seconds: NotNegative = 0.0


@settings
class SFTSettings:
    """`avar:` of a cold-start recipe. profile: the hardware; guidance: the attention-guided loss."""

    profile: Profile = "gpu"
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)


@settings
class GRPOSettings:
    """`avar:` of a GRPO recipe.

    token_weights: factors of the tokens' advantages (`rewards.weigh`).
    losses: terms of the actor's loss beside the policy loss (`rewards.losses`).
    blind: how images are masked in a second pass before each step, which gives the dependence of every token on its
        images; None: no such pass.
    on_reward_error: where a reward fails, "stop" ends the run; with "mask" its response takes no part and is counted.
    on_missing: where a response does not arrive because its rollout or its reward worker raised, "stop" ends the run;
        "mask" trains on the others and counts it. The death of a worker ends the run either way.
    """

    profile: Profile = "gpu"
    rewards: tuple[Term, ...] = PAPER
    token_weights: tuple[WeightTerm, ...] = ()
    losses: tuple[LossTerm, ...] = ()
    blind: BlindSettings | None = None
    on_reward_error: Literal["stop", "mask"] = "stop"
    on_missing: Literal["stop", "mask"] = "stop"
    attention: AttentionSettings = field(default_factory=AttentionSettings)
    groups: GroupSettings = field(default_factory=GroupSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)

    def reward_set(self) -> RewardSet:
        """The reward functions behind `rewards`. ValueError: one is unknown, does not import or has a bad option."""
        return RewardSet(self.rewards, measure_attention=self.attention.measure)

    def token_weight_set(self) -> TokenWeightSet:
        """The functions behind `token_weights`. ValueError: as for the rewards."""
        return TokenWeightSet(self.token_weights)

    def loss_set(self) -> ActorLossSet:
        """The functions behind `losses`. ValueError: as for the rewards."""
        return ActorLossSet(self.losses)

    def step_needs(self) -> frozenset[str]:
        """What rewards and token weights need to be measured before a step's advantages, of `rewards.finding.NEEDS`."""
        return self.reward_set().needs | self.token_weight_set().needs

    def needs_masses(self) -> bool:
        """Whether attention masses are recorded anywhere."""
        return need_masses(self.step_needs() | self.loss_set().needs)

    def plug_ins(self) -> list[PlugIn]:
        """The plug-ins that take part: rewards that are scored, token weights, losses that have a weight."""
        return [*self.reward_set().plug_ins, *self.token_weight_set().plug_ins, *self.loss_set().plug_ins]


_LINES = {"rewards": parse_terms, "token_weights": parse_weights, "losses": parse_losses}


def parse(cls: type[StageSettings], config: DictConfig) -> StageSettings:
    """The `avar:` block of a stage's configuration as a `SFTSettings` or `GRPOSettings`.

    Raises:
        ValueError: there is no such block, or it has an unknown key or a value of the wrong kind (named by its place).
    """
    if "avar" not in config:
        raise ValueError("the configuration has no `avar:` block; start from recipes/config/sft.yaml or grpo.yaml")
    values = OmegaConf.to_container(config.avar, resolve=True)
    if cls is GRPOSettings and isinstance(values, dict):
        values |= {key: parse_lines(values[key]) for key, parse_lines in _LINES.items() if key in values}
    return parse_settings(cls, values, "avar")
