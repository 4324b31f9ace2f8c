"""The combined reward of AVAR's third stage (arXiv 2603.03825): r = r_accuracy + 0.3 r_visual + 0.1 r_format."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Score:
    """A reward with its breakdown: `total` is the weighted sum of the unweighted `parts`."""

    total: float
    parts: dict[str, float]


@dataclass(frozen=True)
class RewardWeights:
    """The weight of each part of the reward; 0 switches a part off."""

    accuracy: float = 1.0
    visual: float = 0.3
    format: float = 0.1

    def __post_init__(self) -> None:
        for part in fields(self):
            weight = getattr(self, part.name)
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"reward weight {part.name} is {weight}; it must be a finite number >= 0")

    def combine(self, parts: Mapping[str, float]) -> Score:
        """Weighted sum of `parts` by name. ValueError: a part is unknown, or one that has a weight is absent."""
        names = {part.name for part in fields(self)}
        unknown = set(parts) - names
        if unknown:
            raise ValueError(f"unknown reward parts {sorted(unknown)}; known: {sorted(names)}")
        missing = sorted(name for name in names - set(parts) if getattr(self, name) != 0)
        if missing:
            raise ValueError(
                f"reward parts {missing} have a weight but no value; set their weights to 0 or compute them"
            )
        return Score(sum(getattr(self, name) * value for name, value in parts.items()), dict(parts))
