"""Golds of the grader: several of a question, what is none, how each is matched; predictions that are no text."""

import pytest

from rewards.grading import check_gold, gold_tier, grade, grade_response


@pytest.mark.parametrize("gold", [[], (), ["6", 7], [None], {"a": "6"}, 5.0])
def test_golds_that_are_no_texts_raise_and_are_named(gold):
    with pytest.raises(ValueError, match=r"gold answer .* is neither a text nor a list"):
        check_gold(gold)


def test_of_several_golds_any_is_right_and_each_is_checked():
    assert grade("5", ["4", "5"]).equivalent is True
    assert grade("6", ["4", "5"]).equivalent is False
    assert grade("B", ("yes", "B")).equivalent is True
    assert grade_response("It is 5.", ["4", "5"]).equivalent is True
    assert grade_response("So it is half.", ["yes", "B"]).equivalent is False
    assert grade("5", ["4", "5"]).gold == "5"
    with pytest.raises(ValueError, match="gold answer"):
        check_gold(["5", ""])


@pytest.mark.parametrize("prediction", [None, 5, 5.0, b"5", ["5"], {"answer": "5"}, object(), ""])
def test_a_prediction_that_is_no_text_is_no_answer(prediction):
    for grader in (grade, grade_response):
        verdict = grader(prediction, "5")
        assert (verdict.equivalent, verdict.tier) == (False, "empty")


@pytest.mark.parametrize("options", ["red", ["red", 2], [None], 5])
def test_options_that_are_no_texts_raise(options):
    with pytest.raises(ValueError, match="options are"):
        grade("B", "B", options=options)


@pytest.mark.parametrize(
    ("gold", "tier"),
    [
        ("B", "choice"),
        ("(C) 12 cm", "choice"),
        ("ABD", "choice"),
        ("Yes", "yes or no"),
        ("12 cm", "number"),
        ("x = 3/4", "number"),
        ("x^2 + 1", "maths"),
        ("7 R 3", "maths"),
        (r"\{1, 2\}", "maths"),
        ("red cat", "words"),
        ("第二象限", "words"),
        (r"\text{increasing for all } x > 2 \wedge", "text only"),
        ("the red cat sits on the mat because it is tired and wants to sleep", "text only"),
    ],
)
def test_how_a_gold_can_be_matched(gold, tier):
    assert gold_tier(gold) == tier


def test_a_kind_says_how_a_gold_can_be_matched():
    assert gold_tier("B", "maths") == "maths"
    assert gold_tier("12", "text") == "words"
    with pytest.raises(ValueError, match="gold answer"):
        gold_tier("1+")


BIRDS = ["heron", "flamingo", "stork", "dark red stork"]


@pytest.mark.parametrize(
    ("response", "gold", "expected"),
    [
        ("It has pink feathers and stands in water. It is a flamingo.", "B", True),
        ("The arrow points to the heron, so the flamingo is the answer here.", "B", True),
        ("It has pink feathers and stands in water. It is a heron.", "B", False),
        ("It is not a flamingo.", "B", False),
        ("It may be a heron, it may be a flamingo.", "B", False),
        ("I see a bird standing in shallow water.", "B", False),
        ("This one is a dark red stork, I think.", "D", True),
        ("This one is a dark red stork, I think.", "C", False),
        ("Its long neck and the colour make it a flamingo.", "flamingo", True),
    ],
)
def test_an_option_said_in_the_closing_sentence_is_the_answer_where_nothing_else_is_stated(response, gold, expected):
    assert (grade_response(response, gold, options=BIRDS).equivalent is True) is expected


@pytest.mark.parametrize(
    ("response", "gold", "expected"),
    [
        ("With side 5 the diagonal is 5√2 units.", r"5\sqrt{2}", True),
        ("With side 5 the diagonal is 5√2 units.", "2", False),
        ("So the volume is 12π cubic centimetres, not 36π.", r"12\pi", True),
        ("So the volume is 12π cubic centimetres, not 36π.", r"36\pi", False),
        ("The area comes to 12 square metres, rather than 15.", "12", True),
    ],
)
def test_roots_and_pi_in_prose_are_whole_and_what_the_answer_is_not_is_left_out(response, gold, expected):
    assert (grade_response(response, gold).equivalent is True) is expected
