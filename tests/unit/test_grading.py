"""The grader against a labelled table, its policies, its golds, and equivalences that sympy states."""

import json
import re
from collections import defaultdict
from dataclasses import fields, replace
from pathlib import Path

import pytest

from rewards.grading import DEFAULT, Policy, check_gold, extract_answer, grade, grade_response

# sympy on a busy machine: verdicts here must not depend on its speed
PATIENT = replace(DEFAULT, limit_s=60)
ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"


def labelled(name: str) -> dict[str, list[dict]]:
    """Rows by category."""
    rows = defaultdict(list)
    for line in (DATA / name).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["category"]].append(row)
    return rows


PAIRS, RESPONSES = labelled("grading_pairs.jsonl"), labelled("grading_responses.jsonl")


def same(prediction: str, gold: str, **changes) -> bool | None:
    return grade(prediction, gold, policy=replace(DEFAULT, **changes)).equivalent


def test_the_table_has_both_polarities_in_nearly_every_category():
    both = [category for category, rows in PAIRS.items() if {row["expected"] for row in rows} == {True, False}]
    assert len(PAIRS) >= 30 and len(both) >= len(PAIRS) - 1
    assert sum(map(len, PAIRS.values())) > 800


@pytest.mark.parametrize("category", PAIRS)
def test_labelled_answers(category):
    wrong = [
        (row["pred"], row["gold"], verdict)
        for row in PAIRS[category]
        if (verdict := grade(row["pred"], row["gold"], options=row.get("options"), policy=PATIENT)).equivalent
        is not row["expected"]
    ]
    assert not wrong


@pytest.mark.parametrize("category", RESPONSES)
def test_labelled_responses(category):
    wrong = [
        (row["pred"], row["gold"], verdict)
        for row in RESPONSES[category]
        if (verdict := grade_response(row["pred"], row["gold"], policy=PATIENT)).equivalent is not row["expected"]
    ]
    assert not wrong


def test_most_pairs_end_in_a_cheap_tier():
    tiers = [grade(row["pred"], row["gold"], policy=PATIENT).tier for rows in PAIRS.values() for row in rows]
    assert tiers.count("symbolic") < 0.03 * len(tiers)


# Prediction, gold, and the verdict under each setting of the policy, all others at their defaults.
SWITCHED = {
    "percent_as_fraction": ("10%", "0.1", {True: True, False: False}),
    "percent_sign_optional": ("10%", "10", {True: True, False: False}),
    "unit_optional": ("12 cm", "12", {True: True, False: False}),
    "convert_units": ("1 m", "100 cm", {True: True, False: False}),
    "degree_sign_optional": ("45°", "45", {True: True, False: False}),
    "degrees_as_radians": ("180°", r"\pi", {True: True, False: False}),
    "currency_optional": ("$5", "5", {True: True, False: False}),
    "decimal_comma": ("1,5", "1.5", {True: True, False: False}),
    "thousands_space": ("1 234", "1234", {True: True, False: False}),
    "rounded_digits": ("0.3333", r"\frac{1}{3}", {0: False, 1: True, 4: True, 5: False}),
    "name_optional": ("x=5", "5", {True: True, False: False}),
    "bare_list_as_tuple": ("1, 2", "(1, 2)", {True: True, False: False}),
    "braces_as_tuple": ("{1, 3}", "(1, 3)", {True: True, False: False}),
    "brackets_as_tuple": ("[1, 2, 3]", "(1, 2, 3)", {True: True, False: False}),
    "vector_as_tuple": (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1, 2)", {True: True, False: False}),
    "inequality_as_interval": ("0 < x < 1", "(0, 1)", {True: True, False: False}),
    "ratio_in_lowest_terms": ("2:4", "1:2", {True: True, False: False}),
    "ratio_as_fraction": ("3:2", "3/2", {True: True, False: False}),
    "time_seconds_optional": ("20:34:00", "20:34", {True: True, False: False}),
    "number_words": ("six", "6", {True: True, False: False}),
    "ignore_articles": ("the elephant", "elephant", {True: True, False: False}),
    "ignore_plural": ("cats", "cat", {True: True, False: False}),
    "precision": ("3.14159", "3.14", {None: False, 2: True, 3: False}),
    "choice_any_order": ("CBA", "ABC", {True: True, False: False}),
}


def test_every_policy_is_switched_in_a_test():
    elsewhere = {"last_expression", "limit_s", "max_length"}
    assert {field.name for field in fields(Policy)} == SWITCHED.keys() | elsewhere


@pytest.mark.parametrize("name", SWITCHED)
def test_a_policy_switches_its_verdict(name):
    prediction, gold, expected = SWITCHED[name]
    assert {setting: same(prediction, gold, **{name: setting}) for setting in expected} == expected


@pytest.mark.parametrize("name", SWITCHED)
def test_no_setting_touches_a_pair_that_it_says_nothing_about(name):
    for setting in SWITCHED[name][2]:
        assert same("6/3", "2", **{name: setting}) is True
        assert same("7/3", "2", **{name: setting}) is False
        assert same("blue", "Blue.", **{name: setting}) is True


def test_the_table_of_the_documentation_has_every_policy_and_its_default():
    rows = re.findall(r"^\| `(\w+)` \| ([\w.]+) \|", (ROOT / "docs" / "grading.md").read_text(), re.MULTILINE)
    assert dict(rows) == {field.name: str(field.default).lower().removesuffix(".0") for field in fields(Policy)}


def test_what_the_readme_says_of_its_examples_is_true():
    text = (ROOT / "rewards" / "grading" / "README.md").read_text()
    examples = re.findall(r"^(grade.*\.equivalent)  # (True|False)", text, re.MULTILINE)
    assert len(examples) == 6
    for code, expected in examples:
        assert str(eval(code, {"grade": grade, "grade_response": grade_response, "Policy": Policy})) == expected, code


def test_the_defaults_of_the_switches():
    off = {field.name for field in fields(Policy) if field.default is False}
    assert off == {"ratio_as_fraction"}
    assert (DEFAULT.rounded_digits, DEFAULT.limit_s, DEFAULT.max_length) == (4, 2.0, 2000)


def test_without_the_last_expression_only_a_stated_answer_counts():
    strict = replace(DEFAULT, last_expression=False)
    assert grade_response("It is 6.", "6").equivalent is True
    assert grade_response("It is 6.", "6", policy=strict).equivalent is False
    assert grade_response(r"It is \boxed{6}.", "6", policy=strict).equivalent is True


@pytest.mark.parametrize(
    ("prediction", "gold", "precision", "expected"),
    [
        ("2.345", "2.35", 2, True),  # half up
        ("-2.345", "-2.35", 2, True),
        ("2.344", "2.35", 2, False),
        (r"\pi", "3.14", 2, True),
        (r"\sqrt{2}", "1.4", 1, True),
        ("2/3", "0.67", 2, True),
        ("2/3", "0.66", 2, False),
        ("7.6", "8", 0, True),
        ("1.234 m", "123 cm", 0, True),  # in the unit of the gold
        ("1.234 m", "123 cm", 2, False),
        ("x + 1.001", "x + 1", 2, False),
        ("(1.004, 2)", "(1, 2)", 2, True),
        ("1.004", "1", None, False),
    ],
)
def test_numbers_are_rounded_to_a_stated_precision(prediction, gold, precision, expected):
    assert same(prediction, gold, precision=precision) is expected


@pytest.mark.parametrize("precision", [-1, 31])
def test_an_impossible_precision_is_refused(precision):
    with pytest.raises(ValueError, match="Policy.precision"):
        Policy(precision=precision)


@pytest.mark.parametrize(("limit_s", "length"), [(0, 10), (-1, 10), (1, 0)])
def test_impossible_policies_are_refused(limit_s, length):
    with pytest.raises(ValueError, match="Policy"):
        Policy(limit_s=limit_s, max_length=length)


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [("B", "blue", True), ("A", "blue", False), ("blue", "B", True), ("red", "B", False), ("(B) blue", "B", True)],
)
def test_with_options_a_letter_is_its_option(prediction, gold, expected):
    assert grade(prediction, gold, options=["red", "blue", "green"]).equivalent is expected


def test_a_kind_settles_what_a_gold_is():
    assert grade("b", "B").equivalent is True
    assert grade("b", "B", kind="maths").equivalent is False
    assert grade("on", "no", kind="text").equivalent is False
    with pytest.raises(ValueError, match="unknown kind .* known: choice"):
        grade("1", "1", kind="number")


@pytest.mark.parametrize(
    "gold", ["", "  ", "$$", ".", r"\frac{1}{", "(((", "}{", "__import__('os')", "1+", "7" * 2001, None, 5]
)
def test_unreadable_golds_raise_and_are_named(gold):
    with pytest.raises(ValueError, match="gold answer"):
        check_gold(gold)
    with pytest.raises(ValueError, match="gold answer"):
        grade("1", gold)


@pytest.mark.parametrize(
    "gold", ["6", r"\frac{3}{16}", "C", "yes", "blue square", "x=3", "12 apples", "∞", r"\emptyset"]
)
def test_readable_golds(gold):
    check_gold(gold)


def test_a_verdict_says_how_it_was_decided():
    verdict = grade("12 m", "12 kg")
    assert verdict.equivalent is False and verdict.tier == "structure" and "unit" in verdict.reason
    verdict = grade(r"\frac{2}{4}", "0.5")
    assert (verdict.equivalent, verdict.prediction, verdict.gold) == (True, "(2/4)", "1/2")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (r"\boxed{(1,2)}, \boxed{(3,4)}", "(1,2), (3,4)"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"The answer is 5. Wait, \boxed{6}.", "6"),
        (r"\boxed{6} is half. Final answer: 12.", "12"),
        ("<answer>1</answer> or <answer>2</answer>", "2"),
        ("The answer is 42 because so", "42 because so"),
        ("So we find $x^2$.", "x^2"),
        ("It weighs 1,200.5 g", "1,200.5 g"),
        ("no number", None),
        ("<think>There are 3", None),  # cut off within its thought
        ("<think>There are 3</think> 4", "4"),
        (r"\boxed{\frac{1}{2}", None),
    ],
)
def test_extraction(response, expected):
    assert extract_answer(response) == expected
