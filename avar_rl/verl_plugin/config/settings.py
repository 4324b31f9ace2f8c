"""The `avar:` block of a recipe, parsed once into frozen dataclasses; the rest of the configuration is verl's own."""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from avar_rl.guidance import GuidanceConfig
from rewards.combine import PAPER, RewardSet, Term, parse_terms


@dataclass(frozen=True)
class AttentionSettings:
    """What the actor's forward records for the attention rewards. Travels to the engine with each batch."""

    layers: tuple[int, ...] | None = None  # None: all layers
    measure: bool = False  # masses and attention rewards are measured even where no attention reward has a weight


@dataclass(frozen=True)
class GroupSettings:
    """How the responses to one question are compared."""

    normalise: str = "total"  # "parts": each part on its own within the group (GDPO, arXiv 2601.05242), then summed
    mask_uniform_accuracy: bool = False  # groups whose accuracy has no spread get no advantage

    def __post_init__(self) -> None:
        if self.normalise not in ("total", "parts"):
            raise ValueError(f"avar.groups.normalise must be 'total' or 'parts', not {self.normalise!r}")


@dataclass(frozen=True)
class RolloutSettings:
    """The rollout record (avar_rl.rollouts): every response of a step with its parts and masses."""

    dir: str | None = None  # where it is written; None: not at all
    every: int = 1  # steps
    images: bool = True  # a copy of each image that is sampled, once

    def __post_init__(self) -> None:
        if self.dir is not None and not (isinstance(self.dir, str) and self.dir):
            raise ValueError(f"avar.rollouts.dir must be a directory or null, not {self.dir!r}")
        if type(self.every) is not int or self.every < 1:
            raise ValueError(
                f"avar.rollouts.every must be a whole number above 0, not {self.every!r}; "
                "avar.rollouts.dir=null switches the record off"
            )


@dataclass(frozen=True)
class GuardSettings:
    """Start-up guard: the first step of a run stops unless rollout and actor agree on the tokens' probabilities."""

    min_correlation: float = 0.99
    max_difference_fp32: float = 1e-3  # checked where the rollout runs in float32
    step_minutes: float = 30.0  # a step (or the start-up) that takes longer is a hang: the run stops
    total_minutes: float = 0.0  # wall-clock limit of the whole stage; 0: none


@dataclass(frozen=True)
class SFTSettings:
    """`avar:` of a cold-start recipe."""

    profile: str = "gpu"
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)


@dataclass(frozen=True)
class GRPOSettings:
    """`avar:` of a GRPO recipe."""

    profile: str = "gpu"
    rewards: tuple[Term, ...] = PAPER
    on_reward_error: str = "stop"  # a reward that fails stops the run; "mask": its response takes no part, counted
    attention: AttentionSettings = field(default_factory=AttentionSettings)
    groups: GroupSettings = field(default_factory=GroupSettings)
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)

    def __post_init__(self) -> None:
        if self.on_reward_error not in ("stop", "mask"):
            raise ValueError(f"avar.on_reward_error must be 'stop' or 'mask', not {self.on_reward_error!r}")

    def reward_set(self) -> RewardSet:
        """The reward functions behind `rewards`. ValueError: one is unknown, does not import or has a bad option."""
        return RewardSet(self.rewards, measure_attention=self.attention.measure)


def parse(cls: type, config: DictConfig) -> Any:
    """The `avar:` block of `config` as a `cls`. ValueError names an unknown key or a value of the wrong kind."""
    if "avar" not in config:
        raise ValueError("the configuration has no `avar:` block; start from recipes/config/sft.yaml or grpo.yaml")
    return _build(cls, OmegaConf.to_container(config.avar, resolve=True), "avar")


def _build(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a mapping, not {values!r}")
    known = {item.name for item in fields(cls)}
    for key in values:
        if key not in known:
            raise ValueError(f"unknown configuration key {where}.{key}; known: {', '.join(sorted(known))}")
    kinds = get_type_hints(cls)
    return cls(**{key: _value(kinds[key], value, f"{where}.{key}") for key, value in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """`value` as the kind that a dataclass field is annotated with."""
    if is_dataclass(kind):
        return _build(kind, value, where)
    if value is None and type(None) in get_args(kind):
        return None
    if kind in (float, float | None):
        return _number(value, where)
    if kind == tuple[int, ...] | None:
        return _layers(value, where)
    if kind == tuple[Term, ...]:
        return parse_terms(value, where)
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{where} must be true or false, not {value!r}")
    return value


def _number(value: Any, where: str) -> float:
    try:
        if isinstance(value, bool):  # float(True) is 1.0
            raise TypeError
        return float(value)  # text, too: YAML 1.1 reads 1e-6 as such
    except (TypeError, ValueError):
        raise ValueError(f"{where} must be a number, not {value!r}") from None


def _layers(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(layer) is int for layer in value):
        raise ValueError(f"{where} must be a list of layer indices or null, not {value!r}")
    return tuple(value)


def absolute_paths(config: DictConfig) -> None:
    """Makes the paths of reward files and of the rollout record absolute in `config`: workers may run elsewhere."""
    for line in (config.get("avar", {}).get("rewards") or {}).values():
        if isinstance(line, DictConfig) and isinstance(line.get("path"), str):
            line.path = str(Path(line.path).expanduser().resolve())
    rollouts = config.get("avar", {}).get("rollouts")
    if isinstance(rollouts, DictConfig) and isinstance(rollouts.get("dir"), str) and rollouts.dir:
        rollouts.dir = str(Path(rollouts.dir).expanduser().resolve())


__all__ = [
    "AttentionSettings",
    "GRPOSettings",
    "GroupSettings",
    "GuardSettings",
    "RolloutSettings",
    "SFTSettings",
    "absolute_paths",
    "parse",
]
