"""Token weights: what is checked, how factors are normalised and multiplied, worked by hand."""

import math
import re
from pathlib import Path

import pytest
import torch

from rewards.sample import AttentionSample, Masses, Tokens
from rewards.weigh import TokenWeightError, TokenWeightSet, parse_weights, top_share, unweighted

HEAD = """
from collections.abc import Sequence
import torch
from torch import Tensor
from rewards.plugin import token_weight
from rewards.sample import AttentionSample
"""
BY_ENTROPY = "@token_weight\ndef own(sample: AttentionSample) -> Tensor:\n    return sample.tokens.entropy_T\n"
OF_STEP = "@token_weight\ndef own(samples: Sequence[AttentionSample]) -> Sequence[Tensor]:\n    return "


@pytest.fixture
def weights(tmp_path):
    """A function: the source of the weight `own`, keys of its line in a recipe -> the set with it alone."""

    def found(source: str, **line) -> TokenWeightSet:
        path = tmp_path / f"own_{abs(hash(source))}.py"
        path.write_text(HEAD + source)
        return TokenWeightSet(parse_weights({"own": {"path": str(path), **line}}))

    return found


def sample(*entropies: float, row: str = "7", **known) -> AttentionSample:
    entropy_T = torch.tensor(entropies)
    return AttentionSample("q", "r", "6", row_id=row, tokens=Tokens(-entropy_T, entropy_T), **known)


def factors(weighed) -> list[list[float]]:
    return [factors_T.tolist() for factors_T in weighed.factors]


def test_factors_are_what_the_weight_returned(weights):
    found = weights(BY_ENTROPY).weigh([sample(0.0, 0.5, 2.0), sample(), sample(3.0)])
    assert factors(found) == [[0.0, 0.5, 2.0], [], [3.0]] and found.errors == ("", "", "")
    assert all(factors_T.dtype == torch.float32 for factors_T in found.factors)


def test_a_mean_of_one_over_each_response_or_over_the_step(weights):
    rows = [sample(1.0, 3.0), sample(0.0, 0.0, 0.0, 4.0), sample(0.0, 0.0)]
    # means 2, 1 and 0: where nothing is chosen, nothing is scaled up
    assert factors(weights(BY_ENTROPY, normalise="response").weigh(rows)) == [[0.5, 1.5], [0, 0, 0, 4.0], [0.0, 0.0]]
    # 8 over 8 tokens; twice that with twice the entropies, which changes nothing
    step = weights(BY_ENTROPY, normalise="batch")
    assert factors(step.weigh(rows)) == [[1.0, 3.0], [0, 0, 0, 4.0], [0.0, 0.0]]
    assert factors(step.weigh([sample(2.0, 6.0), sample(0.0, 0.0, 0.0, 8.0)])) == [[0.75, 2.25], [0, 0, 0, 3.0]]
    assert factors(step.weigh(rows)) == factors(step.weigh(rows))
    returned = step.weigh(rows).returned["own"]
    assert returned[0] is not None and returned[0].tolist() == [1.0, 3.0]  # before it is normalised


@pytest.mark.parametrize("normalise", ["response", "batch"])
def test_equal_factors_are_exactly_one(weights, normalise):
    rows = [sample(*[value] * length) for value, length in ((0.3, 7), (0.3, 1), (0.3, 1001))]
    found = weights(BY_ENTROPY, normalise=normalise).weigh(rows)
    for factors_T in found.factors:
        assert torch.equal(factors_T, torch.ones(len(factors_T)))


def test_several_multiply_each_normalised_by_itself(tmp_path):
    path = tmp_path / "two.py"
    other = "@token_weight\ndef other(sample: AttentionSample) -> Tensor:\n    return torch.tensor([4.0, 0.0])\n"
    path.write_text(HEAD + BY_ENTROPY + other)
    lines = {"own": {"path": str(path)}, "other": {"path": str(path), "normalise": "response"}}
    both = TokenWeightSet(parse_weights(lines))
    assert both.names == ("own", "other") and both.needs == frozenset()
    assert factors(both.weigh([sample(1.5, 2.0)])) == [[3.0, 0.0]]  # 1.5 * 4 / 2; 2 * 0


def test_a_weight_of_the_whole_step_sees_all_responses_and_their_advantages(weights):
    source = OF_STEP + "[torch.full_like(s.tokens.entropy_T, s.advantage * len(samples)) for s in samples]\n"
    rows = [sample(1.0, 1.0, advantage=0.5), sample(1.0, advantage=0.25)]
    assert factors(weights(source).weigh(rows)) == [[1.0, 1.0], [0.5]]


def test_without_a_weight_all_factors_are_one():
    assert factors(TokenWeightSet(()).weigh([sample(1.0, 2.0)])) == [[1.0, 1.0]]
    assert TokenWeightSet(()).weigh([]).factors == ()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("torch.tensor([1.0, -0.5])", "ValueError: it returned -0.5 for token 1; a factor is a finite number from 0"),
        ("torch.tensor([float('nan'), 1.0])", "ValueError: it returned nan for token 0; a factor is a finite number"),
        ("torch.tensor([1.0, float('inf')])", "ValueError: it returned inf for token 1"),
        ("torch.ones(3)", r"ValueError: it returned a tensor of shape \(3,\) for 2 tokens, not \(2,\)"),
        ("torch.ones(2, 1)", r"ValueError: it returned a tensor of shape \(2, 1\) for 2 tokens"),
        ("[1.0, 1.0]", r"ValueError: it returned \[1.0, 1.0\]; a token weight returns a tensor"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_weight_that_fails_on_a_response_names_itself_the_row_and_the_value(weights, body, expected):
    source = BY_ENTROPY.replace("return", f"return {body} if sample.row_id == 'bad' else")
    found = weights(source, normalise="batch").weigh([sample(3.0), sample(1.0, 1.0, row="bad"), sample(1.0)])
    with pytest.raises(TokenWeightError, match=f"token weight own failed on row bad: {expected}"):
        raise TokenWeightError(found.errors[1])
    assert found.errors[0] == found.errors[2] == ""
    # the others' mean is theirs alone
    assert found.factors[1] is None and found.returned["own"][1] is None
    assert [found.factors[i].tolist() for i in (0, 2)] == [[1.5], [0.5]]
    every = f"failed on every response of the step; the first:\n(.|\n)*{expected}"
    with pytest.raises(TokenWeightError, match=every):
        weights(source).weigh([sample(1.0, 1.0, row="bad")])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[torch.ones(1)]", "ValueError: it returned 1 tensors for 2 responses"),
        ("None", "TypeError: 'NoneType' object is not iterable"),
        ("samples[7]", "IndexError"),
    ],
)
def test_a_weight_of_the_whole_step_that_fails_on_it_stops(weights, body, expected):
    with pytest.raises(TokenWeightError, match=f"token weight own failed on the step: {expected}"):
        weights(OF_STEP + body).weigh([sample(1.0), sample(1.0)])


def test_a_step_without_a_factor_above_zero_stops(weights):
    with pytest.raises(TokenWeightError, match="avar.token_weights: own is 0 for every token of the step, so nothing"):
        weights(BY_ENTROPY, normalise="batch").weigh([sample(0.0, 0.0), sample(0.0)])
    assert factors(weights(BY_ENTROPY).weigh([sample()])) == [[]]  # no token, no factor: nothing to stop for


def test_factors_beyond_32_bits_stop(weights):
    large = BY_ENTROPY.replace("entropy_T", "entropy_T.double() * 1e300")
    with pytest.raises(TokenWeightError, match="a factor own is too large for a 32-bit number"):
        weights(large).weigh([sample(1.0)])
    assert factors(weights(large, normalise="response").weigh([sample(1.0, 3.0)])) == [[0.5, 1.5]]


def test_a_mean_in_each_response_of_a_weight_that_compares_them_is_refused(weights):
    source = OF_STEP + "[s.tokens.entropy_T for s in samples]\n"
    with pytest.raises(ValueError, match="avar.token_weights.own.normalise=response: own compares the responses"):
        weights(source, normalise="response")
    assert factors(weights(source, normalise="batch").weigh([sample(1.0), sample(3.0)])) == [[0.5], [1.5]]


def test_lines_of_a_recipe():
    assert parse_weights(None) == parse_weights({}) == ()
    (term,) = parse_weights({"attention_top": {"share": 0.4, "normalise": "batch"}})
    assert (term.name, term.normalise, term.options) == ("attention_top", "batch", (("share", 0.4),))
    assert parse_weights({"entropy_top": None})[0].options == ()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ({"attention_top": 0.4}, "avar.token_weights.attention_top must be a mapping of options, such as {}, not 0.4"),
        (
            {"attention_top": {"normalise": "no"}},
            "normalise: Input should be 'none', 'response' or 'batch'",
        ),
        ({"atention_top": {}}, "unknown token weight atention_top; did you mean attention_top"),
        ({"attention_top": {"share": 0}}, "avar.token_weights.attention_top.share: Input should be greater than 0"),
        (
            {"attention_top": {"top": 1}},
            "unknown key avar.token_weights.attention_top.top; .* takes share, beside",
        ),
        ({"entropy_top": {"over": "group"}}, "entropy_top.over: Input should be 'batch' or 'response', not 'group'"),
        ({"visual": {}}, "unknown token weight visual"),
    ],
)
def test_mistakes_are_named_before_the_start(lines, expected):
    with pytest.raises(ValueError, match=expected):
        TokenWeightSet(parse_weights(lines))


def test_the_top_share_is_rounded_up_and_the_earlier_of_equals_wins():
    values_T = torch.tensor([1.0, 3.0, 2.0, 3.0, 3.0])
    assert top_share(values_T, 0.4).tolist() == [False, True, False, True, False]
    assert top_share(values_T, 0.41).sum() == 3 and top_share(values_T, 0.01).tolist() == [0, 1, 0, 0, 0]
    assert top_share(values_T, 1.0).all() and top_share(torch.zeros(0), 0.4).tolist() == []
    assert top_share(torch.arange(100.0), 0.07).sum() == 7  # 0.07 * 100 > 7 in binary
    with pytest.raises(ValueError, match="not finite"):
        top_share(torch.tensor([math.nan, 1.0]), 0.5)


def test_outside_training_nothing_is_known_of_tokens():
    assert unweighted(sample(1.0, 2.0)).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="need AttentionSample.tokens"):
        unweighted(AttentionSample("q", "r", "6"))


def test_the_one_that_the_documentation_shows(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "methods" / "token_weights.md"
    shown = re.search(r"```python\n# rewards/looking.py\n(.*?)```", page.read_text(), re.DOTALL)
    assert shown and len([line for line in shown[1].splitlines() if line]) <= 15
    path = tmp_path / "looking.py"
    path.write_text(shown[1])
    looking = TokenWeightSet(parse_weights({"looking": {"path": str(path), "strength": 2.0}}))
    assert looking.needs == {"masses"}
    image_TL = torch.tensor([[0.25, 0.75], [0.0, 0.5]])
    rows = [sample(1.0, 1.0, advantage=advantage, masses=Masses(image_TL, image_TL)) for advantage in (0.5, -0.5)]
    assert factors(looking.weigh(rows)) == [[2.0, 1.5], [1.0, 1.0]]  # 1 + 2 * 0.5, 1 + 2 * 0.25
