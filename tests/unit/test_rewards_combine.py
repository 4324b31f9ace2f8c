"""Weights, gates, order and failures of a set of rewards, worked by hand."""

import asyncio
import math

import pytest
import torch

from rewards.combine import PAPER, RewardError, RewardSet, Term, Values, parse_terms
from rewards.sample import AttentionSample, Masses, Sample

RIGHT = "<think>I see one circle.</think><answer>6</answer>"


def score(rewards: RewardSet, response: str = RIGHT, gold: str = "6") -> Values:
    return asyncio.run(rewards.score_text(Sample("q", response, gold, row_id="row 7")))


def attended(share: float) -> AttentionSample:
    masses = Masses(torch.full((2, 3), share), torch.full((2, 3), 1 - share))
    return AttentionSample("q", RIGHT, "6", image_sizes=((4, 4),), masses=masses, group=(masses,))


@pytest.fixture
def own(tmp_path):
    """A function: source of a reward called `own` -> its line in a recipe."""

    def line(body: str, **settings) -> dict:
        path = tmp_path / f"own_{abs(hash(body))}.py"
        path.write_text(f"from rewards.plugin import reward\nfrom rewards.sample import Sample\n@reward\n{body}\n")
        return {"own": {"weight": 1.0, "path": str(path), **settings}}

    return line


def test_the_default_is_the_papers():
    # 1.0 * 1 + 0.3 * 0.5 + 0.1 * 1 = 1.25
    rewards = RewardSet(PAPER)
    assert rewards.weights == {"accuracy": 1.0, "format": 0.1, "visual": 0.3} and rewards.gates == {
        "visual": "accuracy"
    }
    combined = rewards.combine(Values({"accuracy": 1.0, "format": 1.0, "visual": 0.5}))
    assert combined.total == pytest.approx(1.25)
    assert combined.weighted == {"accuracy": 1.0, "format": 0.1, "visual": 0.15}


def test_lines_of_a_recipe():
    terms = parse_terms(
        {
            "accuracy": 1,
            "visual": {"weight": "3e-1", "gate": None, "layers": [0, 2]},
            "own": {"weight": 0, "path": "f.py", "name": "an option", "options": [1]},
        }
    )
    assert terms[0] == Term("accuracy", 1.0)
    assert terms[1] == Term("visual", 0.3, None, None, (("layers", (0, 2)),))
    assert terms[2] == Term("own", 0, path="f.py", options=(("name", "an option"), ("options", (1,)))) and hash(terms)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (None, "avar.rewards must be a mapping of names to weights, not None"),
        ({"accuracy": "much"}, "avar.rewards.accuracy.weight: Input should be a valid number, unable to parse"),
        ({"accuracy": True}, "avar.rewards.accuracy.weight: Input should be a number, not True"),
        ({"accuracy": -0.1}, "avar.rewards.accuracy.weight: Input should be greater than or equal to 0, not -0.1"),
        ({"accuracy": math.nan}, "avar.rewards.accuracy.weight: Input should be a finite number, not nan"),
        ({"visual": {"gate": "accuracy"}}, "missing key avar.rewards.visual.weight"),
        ({"visual": {"weight": 1, "gate": 3}}, "avar.rewards.visual.gate: Input should be a valid string, not 3"),
        ({"visual": 1}, "visual is gated by accuracy, which is not among avar.rewards"),
        ({}, "avar.rewards is empty"),
        ({"format": {"weight": 1, "gate": "format"}}, "gate each other in a circle: format <- format"),
        (
            {"visual": {"weight": 1, "gate": None}, "format": {"weight": 1, "gate": "visual"}},
            "format is gated by visual, which is scored later",
        ),
    ],
)
def test_mistakes_are_named(lines, expected):
    with pytest.raises(ValueError) as error:
        RewardSet(parse_terms(lines))
    assert expected in str(error.value)


def test_text_rewards_are_scored_gates_first_and_see_what_came_before(own):
    body = "def own(sample: Sample):\n    return sample.parts['accuracy'] + 10 * sample.parts['format']"
    rewards = RewardSet(parse_terms({**own(body, gate="format"), "accuracy": 1.0, "format": 0.1}))
    assert list(rewards.weights) == ["format", "own", "accuracy"]
    with pytest.raises(RewardError, match="KeyError: 'accuracy'"):  # accuracy comes after it here
        score(rewards)
    listed = RewardSet(parse_terms({"accuracy": 1.0, **own(body, gate="format"), "format": 0.1}))
    assert score(listed).raw == {"accuracy": 1.0, "format": 1.0, "own": 11.0}


def test_a_text_reward_behind_a_closed_gate_is_not_called(own):
    lines = {"accuracy": 1.0, **own("def own(sample: Sample):\n    raise OSError('called')", gate="accuracy")}
    values = score(RewardSet(parse_terms(lines)), gold="5")
    assert values == Values({"accuracy": 0.0, "own": None}, frozenset({"own"}))
    with pytest.raises(RewardError, match="OSError: called"):
        score(RewardSet(parse_terms(lines)))


def test_an_attention_reward_behind_a_closed_gate_counts_nothing_but_is_measured():
    rewards = RewardSet(parse_terms({"accuracy": 1.0, "visual": {"weight": 0.3, "mode": "share"}}))
    for right, weighted in ((1.0, 0.3 * 0.75), (0.0, 0.0)):
        values = asyncio.run(rewards.score_attention(attended(0.75), Values({"accuracy": right})))
        assert values.raw["visual"] == pytest.approx(0.75)
        assert ("visual" in values.closed) == (right == 0.0)
        assert rewards.combine(values).weighted["visual"] == pytest.approx(weighted)


def test_an_undecided_gate_is_closed():
    rewards = RewardSet(PAPER)
    values = asyncio.run(rewards.score_attention(attended(0.5), Values({"accuracy": None})))
    assert values.closed == {"visual"}


def test_a_gate_behind_a_closed_gate_is_closed(own):
    lines = {"accuracy": 1.0, "format": {"weight": 0.1, "gate": "accuracy"}}
    lines |= own("def own(sample: Sample):\n    return 1.0", gate="format")
    assert score(RewardSet(parse_terms(lines)), gold="5").closed == {"format", "own"}
    assert score(RewardSet(parse_terms(lines))).closed == frozenset()


def test_weight_zero_text_is_reported_and_attention_is_off_unless_measured():
    lines = parse_terms({"accuracy": 0, "visual": 0, "format": 0.5})
    rewards = RewardSet(lines)
    assert list(rewards.weights) == ["accuracy", "format"] and not rewards.needs
    assert rewards.combine(score(rewards)).total == 0.5
    measured = RewardSet(lines, measure_attention=True)
    assert measured.needs == {"masses"} and measured.weights["visual"] == 0.0


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("float('nan')", "it returned nan; a reward returns a finite number, or None"),
        ("float('-inf')", "it returned -inf"),
        ("'0.5'", "it returned '0.5'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_reward_that_fails_is_named_with_row_and_traceback(kind, returned, expected, own):
    rewards = RewardSet(parse_terms(own(f"{kind} own(sample: Sample):\n    return {returned}")))
    with pytest.raises(RewardError) as error:
        score(rewards)
    text = str(error.value)
    assert expected in text and text.splitlines()[-1].startswith("reward own failed on row row 7: ")
    assert "Traceback" in text


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_none_is_not_applicable_and_numbers_of_any_kind_count(kind, own):
    for returned, raw, total in (("None", None, 0.0), ("True", 1.0, 1.0), ("__import__('numpy').float32(2)", 2.0, 2.0)):
        rewards = RewardSet(parse_terms(own(f"{kind} own(sample: Sample):\n    return {returned}")))
        values = score(rewards)
        assert values.raw == {"own": raw} and rewards.combine(values).total == total


def test_an_unscorable_gold_is_an_error_not_a_zero():
    with pytest.raises(RewardError, match="reward accuracy failed on row row 7: ValueError: the gold answer ''"):
        score(RewardSet(parse_terms({"accuracy": 1.0})), gold="")
