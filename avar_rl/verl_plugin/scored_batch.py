"""What the rewards said about one step's responses: the bundle that metrics and the rollout record are made of.

Built once a step by the trainer, after the attention rewards and before the advantages; without verl's filler rows.
Shapes: T response tokens that the policy wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from rewards.combine import Score, Values
from rewards.sample import AttentionSample, Masses


@dataclass(frozen=True)
class ScoredResponse:
    """One response with its rewards.

    key: verl's name of the response, `{uid}_{session}_{index}`.
    uid: verl's name of the prompt; the responses of a group share it.
    sample: the response and its data row, as the rewards saw them, with what was measured of its tokens.
    token_ids_T: int64, the tokens that the policy wrote.
    values: what each reward returned, and which gates were closed.
    score: the weighted parts and their sum, which is trained on.
    masked: takes no part in the advantages, because accuracy is undecided or a reward or a token weight failed and the
        policy is to mask.
    error: traceback, plug-in and row of a reward or token weight that failed; "" without one.
    weights_T: float32, the factor of each of these tokens' advantage; None where tokens are not weighted.
    """

    key: str
    uid: str
    sample: AttentionSample
    token_ids_T: Tensor
    values: Values
    score: Score
    masked: bool = False
    error: str = ""
    weights_T: Tensor | None = None

    @property
    def total(self) -> float:
        """The weighted sum that is trained on."""
        return self.score.total

    @property
    def masses(self) -> Masses | None:
        """Attention masses of the tokens that the policy wrote; None where nothing was recorded."""
        return self.sample.masses

    @property
    def dependence_T(self) -> Tensor | None:
        """What each token that the policy wrote loses by masked images; None without a blind pass or an image."""
        return None if self.sample.tokens is None else self.sample.tokens.dependence_T

    @property
    def accuracy(self) -> float | None:
        """What the accuracy reward returned; None where it is undecided or not among the rewards."""
        return self.values.raw.get("accuracy")


@dataclass(frozen=True)
class ScoredBatch:
    """The responses of one step.

    weights: the weight of every part, by name.
    gates: the gate of every gated part, by name.
    layers: the number of recorded layers; 0 where nothing was recorded.
    blind: a blind pass was run: responses to questions with an image have a dependence.
    """

    step: int
    responses: tuple[ScoredResponse, ...]
    weights: Mapping[str, float] = field(default_factory=dict)
    gates: Mapping[str, str] = field(default_factory=dict)
    layers: int = 0
    blind: bool = False

    def groups(self) -> dict[str, list[ScoredResponse]]:
        """The responses to each prompt by its uid, in order of appearance."""
        groups: dict[str, list[ScoredResponse]] = {}
        for response in self.responses:
            groups.setdefault(response.uid, []).append(response)
        return groups


def undecided(values: Values) -> bool:
    """Whether accuracy is among the rewards and could not decide."""
    return "accuracy" in values.raw and values.raw["accuracy"] is None
