"""The `avar:` block of a recipe, parsed once into frozen dataclasses; the rest of the configuration is verl's own."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from avar_rl.guidance import GuidanceConfig
from rewards import RewardWeights


@dataclass(frozen=True)
class VisualSettings:
    """How response tokens are scored for the visual reward (PAPER: §6). Travels to the engine with each batch."""

    mode: str = "ratio"  # "ratio": img / (sys + eps), the paper's; "share": img / (img + sys), bounded
    eps: float = 1e-6
    clip: float | None = None  # upper bound of a token's score
    layers: tuple[int, ...] | None = None  # None: all layers

    def __post_init__(self) -> None:
        if self.mode not in ("ratio", "share"):
            raise ValueError(f"avar.visual.mode must be 'ratio' or 'share', not {self.mode!r}")
        if self.eps <= 0:
            raise ValueError(f"avar.visual.eps must be positive, not {self.eps}")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"avar.visual.clip must be positive or null, not {self.clip}")


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
    reward: RewardWeights = field(default_factory=RewardWeights)
    visual: VisualSettings = field(default_factory=VisualSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)

    def __post_init__(self) -> None:
        if self.reward.visual and not self.reward.accuracy:
            raise ValueError("avar.reward: the visual reward is gated by correctness, but avar.reward.accuracy is 0")


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


__all__ = ["GRPOSettings", "GuardSettings", "SFTSettings", "VisualSettings", "parse"]
