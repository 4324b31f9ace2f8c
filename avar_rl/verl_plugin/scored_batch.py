"""What the rewards said about one step's responses: the bundle that metrics and the rollout record are made of.

Built once a step by the trainer, after the attention rewards and before the advantages; without verl's filler rows.
Shapes: T response tokens that the policy wrote, L recorded layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ScoredResponse:
    """One response with its parts.

    raw: each part as its function returned it; None: not applicable (for accuracy: undecided).
    weighted: what each part added to `total`: weight x value, 0 where its gate was closed or it was not applicable.
    closed: the parts whose gate was closed.
    masked: takes no part in the advantages: undecided accuracy, or a reward failed and the policy is to mask it.
    error: traceback, reward and row of a failed reward; "" without one.
    image_mass_TL, system_mass_TL: float32 (T, L), heads averaged; None where nothing was recorded.
    """

    key: str  # verl's: {uid}_{session}_{index}
    uid: str  # of the prompt: responses of a group share it
    row_id: str
    row: Mapping[str, Any]  # the data row's columns beside prompt, images and gold
    question: str
    gold: str
    image_sizes: tuple[tuple[int, int], ...]  # (width, height) in pixels
    token_ids_T: Tensor  # int64
    response: str  # decoded, without special tokens
    raw: Mapping[str, float | None]
    weighted: Mapping[str, float]
    closed: frozenset[str]
    total: float
    masked: bool = False
    error: str = ""
    image_mass_TL: Tensor | None = None
    system_mass_TL: Tensor | None = None

    @property
    def accuracy(self) -> float | None:
        """None: undecided, or accuracy is not among the rewards."""
        return self.raw.get("accuracy")

    @property
    def undecided(self) -> bool:
        return "accuracy" in self.raw and self.raw["accuracy"] is None


@dataclass(frozen=True)
class ScoredBatch:
    """The responses of one step; weight of every part, gate of every gated one; L (0: nothing recorded)."""

    step: int
    responses: tuple[ScoredResponse, ...]
    weights: Mapping[str, float] = field(default_factory=dict)
    gates: Mapping[str, str] = field(default_factory=dict)
    layers: int = 0

    def groups(self) -> dict[str, list[ScoredResponse]]:
        """Responses by uid, in order of appearance."""
        groups: dict[str, list[ScoredResponse]] = {}
        for response in self.responses:
            groups.setdefault(response.uid, []).append(response)
        return groups
