"""Both columns of a response: golds made ready for the grader, and where the columns differ."""

import pytest

from avar_rl.evaluation.benchmarks.scoring.both_columns import by_our_grader, gradable, score, score_all
from tests.unit.benchmark_questions import asked, in_its_text

ROUNDED = {"question_type": "free_form", "answer_type": "float", "precision": 1.0}
WHOLE = {"question_type": "free_form", "answer_type": "integer"}


@pytest.mark.parametrize(
    ("sample", "turn", "right"),
    [
        # MathVista: rounded to the precision, in the unit that is asked for
        (asked("1.2", **ROUNDED), "<think>a</think><answer>1.24</answer>", True),
        (asked("1.2", **ROUNDED), "<answer>1.26</answer>", False),
        (asked("1.2"), "<answer>1.24</answer>", False),  # where no precision is asked
        (asked("5", unit="years", **WHOLE), "<answer>5 years</answer>", True),
        (asked("5", unit="years", **WHOLE), "<answer>60 months</answer>", True),
        (asked("5", unit="years", **WHOLE), "<answer>5</answer>", True),
        (asked("5", unit="years", **WHOLE), "<answer>5 months</answer>", False),
        (asked("5", unit="of that", **WHOLE), "<answer>5</answer>", True),  # not read as a unit: left out
        (asked("[2014, 2016]", answer_type="list"), "<answer>[2014, 2016]</answer>", True),
        # MathVision: golds as its source mends them
        (asked(r"69^\circ", answer="69{degrees}"), r"\boxed{69^\circ}", True),
        (asked(r"69^\circ", answer="69{degrees}"), r"\boxed{96^\circ}", False),
        (asked(r"\frac{36}{13}", answer="\x0crac{36}{13}"), r"\boxed{\frac{36}{13}}", True),
        (asked("C"), r"\boxed{C}", True),  # a letter without options
        (in_its_text("C", list("ABCDE")), "<answer>C</answer>", True),
        # MMMU: several golds
        (asked("Tampa", other_golds=("Florida",)), "<answer>Tampa</answer>", True),
        (asked("Tampa", other_golds=("Florida",)), "<answer>Florida</answer>", True),
        (asked("Tampa", other_golds=("Florida",)), "<answer>Georgia</answer>", False),
        # letters, texts of options, and options that stand there twice
        (asked("B", options=("red", "blue")), "<answer>B</answer>", True),
        (asked("B", options=("red", "blue")), "<answer>blue</answer>", True),
        (asked("B", options=("red", "blue")), "<answer>red</answer>", False),
        (asked("A", options=("5", "6", "5")), "<answer>C</answer>", True),
        (asked("A", options=("5", "6", "5")), "<answer>B</answer>", False),
        (asked("A", options=("", "6", "")), "<answer>C</answer>", False),  # empty ones are not the same
        (in_its_text("B", ["red", "blue"]), "<answer>blue</answer>", True),
        (asked("J", options=tuple("1234567890")), "<answer>J</answer>", True),
        # HallusionBench
        (asked("yes", gt_answer="1"), "<answer>Yes</answer>", True),
        (asked("yes", gt_answer="1"), "No, it is not.", False),
        (asked("no", gt_answer="0"), "<answer>no</answer>", True),
        # a thought that is cut off, with the prefill of the turn
        (asked("5"), "<think>so it is 5", False),
    ],
)
def test_ours(sample, turn, right):
    assert by_our_grader(sample, turn).right is right


def test_a_gold_that_cannot_be_scored_is_undecided():
    unscorable = asked("1+((", answer="1+((")
    assert gradable(unscorable).golds == ()
    assert by_our_grader(unscorable, "<answer>5</answer>").right is None
    assert by_our_grader(asked("1+((", other_golds=("5",)), "<answer>5</answer>").right is True


def record(response: str, **more) -> dict:
    return {"id": "b/part/1", "sample": None, "response": response, "tokens": 5, "truncated": False} | more


def test_a_line_has_both_columns():
    question = asked("A", options=("red", "blue"), question_type="multiple-choice")
    assert score("mmmu", question, record("<think>x</think><answer>A</answer>")) == {
        "id": "b/part/1",
        "sample": None,
        "official": {"answer": "A", "right": True, "parsed": True},
        "ours": {"answer": "A", "right": True},
        "judge": None,
    }
    said = score("mmmu", question, record("red"))  # three characters of an option: the official rule wants six words
    assert said["official"] == {"answer": None, "right": False, "parsed": False} and said["ours"]["right"] is True


def test_the_prefill_is_of_the_turn():
    question = asked("A", options=("red", "blue"))
    assert score("mmstar", question, record("it is A", prefill="<think>"))["official"]["parsed"] is False
    assert score("mmstar", question, record("x</think>A", prefill="<think>"))["official"]["right"] is True


def test_records_of_other_questions():
    with pytest.raises(ValueError, match="a response is to question b/part/2, which is not among those asked"):
        score_all("mmmu", {"b/part/1": asked("A")}, [record("A", id="b/part/2")])
    lacking = record("A")
    del lacking["tokens"]
    with pytest.raises(ValueError, match="lacks tokens"):
        score_all("mmmu", {"b/part/1": asked("A")}, [lacking])
