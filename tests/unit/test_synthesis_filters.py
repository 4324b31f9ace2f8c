import pytest

from data_tools.formats.sample import DataSample
from data_tools.synthesis.calls.journal import Completion
from data_tools.synthesis.inputs.recipe import Filters
from data_tools.synthesis.outcomes.anchors import contradiction, find_anchors
from data_tools.synthesis.outcomes.filters import (
    Deduplicator,
    FilterHit,
    reject_description,
    reject_reasoning,
    reject_response,
    reject_sample,
    repetition,
)

DESCRIPTION = "A triangle ABC with a red circle inside. AB = 5, angle C is 90. A blue square lies on the left."
SAMPLE = DataSample("1", "s", "How many circles?", "1", "number", images=(b"\x89PNG",))
LIMITS = Filters(min_anchors=1, max_tokens=50)
GOOD = "<think>Looking at the triangle ABC, one red circle lies inside.</think><answer>1</answer>"


def said(text: str, finish: str = "stop") -> Completion:
    return Completion("k", "r", "anchor", 0, "m", text, finish, 1, 1, 1, 0.0)


def named(hit: FilterHit | None) -> str | None:
    return hit.filter if hit else None


def thinking(thought: str, answer: str = "1") -> str:
    return f"<think>{thought}</think><answer>{answer}</answer>"


LOOK = "Looking at the triangle ABC, one red circle lies inside."
RESPONSES = [
    (GOOD, None),
    (thinking(f"{LOOK} From the text in the image it follows."), None),
    (thinking(f"{LOOK} So the area described by the function is small."), None),
    (thinking(LOOK, "2"), "wrong_answer"),
    (thinking(LOOK, "none?"), "wrong_answer"),
    (GOOD.replace("</think>", ""), "format"),
    (f"Sure! {GOOD}", "format"),
    (f"{GOOD}<answer>1</answer>", "format"),
    ("", "format"),
    ("I'm sorry, but I can't help with that.", "refusal"),
    ("I cannot see the image.", "refusal"),
    (thinking("There was a problem: no image was provided. I look at the circle."), "refusal"),
    (thinking(f"According to the description, {LOOK}"), "leak"),
    (thinking(f"{LOOK} The caption says that there is one."), "leak"),
    (thinking(f"{LOOK} As described, it is one."), "leak"),
    (thinking("It is one circle."), "too_few_anchors"),
    (thinking("Let me look at the image again. It is one."), "decorative_anchors"),
    (thinking("Looking at the picture once more, I check it. It is one."), "decorative_anchors"),
    (thinking("Looking at the triangle, one green circle lies inside."), "contradiction"),
    (thinking("Checking the figure again, AB = 7. One circle."), "contradiction"),
    (thinking(f"{LOOK} " + "Then I count the red circle in it again. " * 9), "repetition"),
]


@pytest.mark.parametrize(("text", "expected"), RESPONSES)
def test_responses(text, expected):
    found = reject_response(said(text), SAMPLE, DESCRIPTION, LIMITS, tokens=10)
    assert named(found) == expected, found


def test_length_and_cut_off():
    assert reject_response(said(GOOD), SAMPLE, DESCRIPTION, LIMITS, tokens=50) is None
    assert named(reject_response(said(GOOD), SAMPLE, DESCRIPTION, LIMITS, tokens=51)) == "too_long"
    assert named(reject_response(said(GOOD, "length"), SAMPLE, DESCRIPTION, LIMITS, tokens=9)) == "cut_off"


def test_a_row_without_image_needs_no_anchor():
    text_only = DataSample("1", "s", "What is 1 + 0?", "1", "number")
    assert reject_response(said(thinking("1 + 0 = 1.")), text_only, "", LIMITS, tokens=9) is None
    assert named(reject_response(said(thinking("1 + 0 = 2.", "2")), text_only, "", LIMITS, tokens=9)) == "wrong_answer"


def test_a_question_about_a_caption_may_be_answered_so():
    asked = DataSample("1", "s", "Does the caption fit?", "yes", "words", images=(b"\x89PNG",))
    text = thinking("Looking at the red circle, the caption fits.", "yes")
    assert reject_response(said(text), asked, DESCRIPTION, LIMITS, tokens=9) is None
    assert reject_response(said(text), SAMPLE, DESCRIPTION, LIMITS, tokens=9) is not None


def test_markup_of_the_chat_is_no_text():
    for text in ("See <|image_pad|>.", "An <image> of it.", "<|im_start|>system"):
        assert named(reject_description(said(text))) == "markup"
        assert named(reject_response(said(thinking(text)), SAMPLE, DESCRIPTION, LIMITS, tokens=9)) == "markup"
    assert reject_description(said("a < b and |x| > 1")) is None


def test_earlier_stages():
    assert reject_description(said(DESCRIPTION)) is None
    assert named(reject_description(said("I'm unable to view the image."))) == "refusal"
    assert named(reject_description(said("  "))) == "format"
    assert reject_reasoning(said(r"So it is \boxed{1}"), SAMPLE) is None
    assert named(reject_reasoning(said("It is 1"), SAMPLE)) == "format"
    assert named(reject_reasoning(said("<answer>3</answer>"), SAMPLE)) == "wrong_answer"
    choice = DataSample("2", "s", "Which?", "B", "choice", options=("red", "blue"))
    assert reject_reasoning(said("<answer>blue</answer>"), choice) is None
    assert named(reject_reasoning(said("<answer>red</answer>"), choice)) == "wrong_answer"
    several = DataSample("3", "s", "Who?", "Ann Lee", "words", other_golds=("Ann",))
    assert reject_reasoning(said("<answer>Ann</answer>"), several) is reject_sample(several) is None
    assert named(reject_reasoning(said("<answer>Lee</answer>"), several)) == "wrong_answer"
    assert reject_sample(SAMPLE) is None
    assert named(reject_sample(DataSample("1", "s", "q", "a + * b", "expression"))) == "undecidable"


@pytest.mark.parametrize(
    ("sentence", "denied"),
    [
        ("I see the red circle", None),
        ("I see a green circle", "green circle, where the description has red"),
        ("I see a green star", None),  # no star: not named, so not denied
        ("Looking at it, AB = 5", None),
        ("Looking at it, AB is 6.5", "AB = 6.5, where the description has 5"),
        ("Looking at it, AB = 2 * 3", None),  # a computation, not a reading
        ("In the figure angle C is 80", "angle C = 80, where the description has 90"),
        ("In the figure C = 80", None),  # a length, perhaps
    ],
)
def test_contradictions(sentence, denied):
    assert contradiction(sentence, DESCRIPTION) == denied


def test_anchors_are_counted_by_hand():
    thought = (
        "Looking at the square, it is blue. Then 2 + 2 = 4. Let me look back at the image. In the figure, AB is 5."
    )
    # three look-backs; the second names nothing
    assert find_anchors(thought, DESCRIPTION) == type(find_anchors("", ""))(3, 2, None)


def test_repetition_by_hand():
    assert repetition("one two three four five") == 0.0  # shorter than a 6-gram
    # 12 words, 7 six-grams: a-f, b-a, c-b, d-c, e-d, f-e, a-f again: one of seven is a repetition
    assert repetition("a b c d e f a b c d e f") == pytest.approx(1 / 7)


def test_near_duplicates_keep_the_first_ones():
    text = " ".join(f"word{n}" for n in range(60))
    index = Deduplicator(0.8, keep=1)
    assert index.reject("a", text) is None
    assert named(index.reject("b", f"{text} more")) == "near_duplicate"
    assert index.reject("c", text) == FilterHit("near_duplicate", "of a")
    assert index.reject("d", " ".join(f"other{n}" for n in range(60))) is None
    two = Deduplicator(0.8, keep=2)
    assert [two.reject(name, text) is None for name in "abc"] == [True, True, False]
    off = Deduplicator(None, keep=1)
    assert [off.reject(name, text) for name in "ab"] == [None, None]
