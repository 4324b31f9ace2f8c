"""The warning about parts of the reward that never change."""

import re
from collections.abc import Mapping

import pytest
import torch

from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse
from avar_rl.verl_plugin.watch.constant_parts import STEPS, ConstantParts
from avar_rl.verl_plugin.watch.metrics import reward_metrics
from rewards.combine import Score, Values
from rewards.sample import AttentionSample

WEIGHTS = {"accuracy": 1.0, "visual": 0.3, "format": 0.1, "judge": 0.0}
GATES = {"visual": "accuracy"}


def step(*parts: Mapping[str, float | None], masked: bool = False) -> dict[str, float]:
    """The curves of a step whose responses have these raw values; visual is gated by accuracy."""
    responses = []
    for number, raw in enumerate(parts):
        closed = frozenset({"visual"} if "visual" in raw and not raw["accuracy"] else ())
        weighted = {n: 0.0 if n in closed else WEIGHTS.get(n, 1.0) * (v or 0.0) for n, v in raw.items()}
        scored = Values(raw, closed), Score(sum(weighted.values()), weighted)
        ids = torch.arange(number + 1)
        responses.append(ScoredResponse(str(number), "a", AttentionSample("q", "r", "6"), ids, *scored, masked=masked))
    weights = {name: WEIGHTS.get(name, 1.0) for name in parts[0]}
    return reward_metrics(ScoredBatch(1, tuple(responses), weights, {n: g for n, g in GATES.items() if n in weights}))


def said(*steps: dict[str, float], weights: dict[str, float] = WEIGHTS) -> list[str]:
    """What is said in all these steps; nothing before the last of the first ten."""
    watch = ConstantParts(weights, GATES)
    found = [watch.add(metrics) for metrics in steps]
    assert not any(found[: STEPS - 1])
    return [sentence for sentences in found for sentence in sentences]


def test_each_constant_part_is_named_once_with_its_value_and_what_is_likely_behind():
    metrics = step({"accuracy": 0.0, "visual": 0.4, "format": 0.0, "judge": 0.0})
    accuracy, visual, form = said(*[metrics] * 25)
    assert accuracy.startswith("the reward accuracy (weight 1) was 0 for every response of the first 10 steps")
    assert "no answer is right" in accuracy
    assert "the reward visual (weight 0.3) was 0" in visual and "its gate accuracy was never open" in visual
    assert "the reward format (weight 0.1) was 0" in form and "tags that are special tokens" in form
    # judge has no weight: nothing is said of it


RIGHT, WRONG = {"accuracy": 1.0, "format": 1.0}, {"accuracy": 0.0, "format": 1.0}
OWN = {"accuracy": 1.0, "own": 1.0}


@pytest.mark.parametrize(
    ("parts", "weights", "expected"),
    [
        ([RIGHT, WRONG], {"accuracy": 1.0, "format": 0.1}, ["was 1 for every .* has the form already; harmless"]),
        ([RIGHT, RIGHT], {"accuracy": 1.0}, ["the data is too easy"]),
        ([{"accuracy": 1.0, "visual": 0.5}] * 2, {"visual": 0.3}, ["was 0.5 .* `clip` lies below all of them"]),
        ([{"accuracy": 1.0, "visual": None}] * 2, {"visual": 0.3}, ["was 0 .* it applied to no response"]),
        ([{"own": 0.7}, {"own": 0.7}], {"own": 1.0}, ["it gives every response the same"]),
        ([{"own": 0.7}, {"own": 0.6}], {"own": 1.0}, []),
        ([{"accuracy": 1.0, "visual": 0.5}, {"accuracy": 0.0, "visual": 0.5}], {"visual": 0.3}, []),  # the gate moves
    ],
)
def test_causes(parts, weights, expected):
    found = said(*[step(*parts)] * STEPS, weights=weights)
    assert len(found) == len(expected)
    assert all(re.search(pattern, sentence) for pattern, sentence in zip(expected, found, strict=True))


def test_one_other_value_in_ten_steps_is_enough():
    same, other = step(RIGHT), step({"accuracy": 0.0, "format": 1.0})
    assert said(*[same] * (STEPS - 1), other, weights={"accuracy": 1.0}) == []


def test_steps_whose_responses_are_all_masked_do_not_count():
    masked, same = step(RIGHT, masked=True), step(RIGHT)
    assert said(*[masked] * 5, *[same] * (STEPS - 1), weights={"accuracy": 1.0}) == []
    assert len(said(*[masked] * 5, *[same] * STEPS, weights={"accuracy": 1.0})) == 1
