"""Patterns on long runs of one character: a run may be read once, not once for each of its places."""

import time

import pytest

from avar_rl.runtime.images import image_bytes
from data_tools.convert.pipeline import gold_kind
from data_tools.convert.sources import mathverse, mathvision, mathvista, mmmu
from data_tools.convert.sources.mmstar import split_options
from data_tools.convert.sources.solidgeo import gold_of
from data_tools.synthesis.calls.journal import Completion
from data_tools.synthesis.outcomes import filters
from rewards.grading import grade, grade_response
from rewards.grading.text.extract import stated_answer

VERSE = {"question": "?", "answer": "B", "image": "a.png", "problem_version": "Text Lite"}


def reply(text: str) -> Completion:
    return Completion("k", "row", "reason", 0, "m", text, "stop", 1, 1, 1, 0.1)


def refused(call, *args) -> None:
    with pytest.raises(ValueError):
        call(*args)


@pytest.mark.parametrize(
    "call",
    [
        lambda: filters.reject_description(reply("!" * 100_000)),  # a teacher that has come off the rails
        lambda: filters.reject_description(reply("<think>" + "\n" * 100_000)),
        lambda: grade_response("\\boxed{5}" + "\n" * 100_000 + "x", "5"),
        lambda: stated_answer("x=" + " " * 100_000 + r"so \boxed{5}"),
        lambda: grade("A" + " " * 390 + "x", "no", kind="text"),
        lambda: gold_kind("1" * 100_000 + "!", ()),
        lambda: gold_of("A" + " " * 100_000 + "x"),
        lambda: refused(image_bytes, "/9j/" + " " * 100_000 + "!"),
        lambda: split_options("Options: A: " + ", B:" * 100_000),
        lambda: split_options("Options:" * 100_000 + " A: x, B: " + " " * 100_000 + "y"),
        lambda: mathvista.from_tsv({"index": "1", "question": "Hint: a\nQuestion: " + "\nChoices" * 100_000}),
        lambda: mathverse.draft({**VERSE, "question_for_eval": "Choices:\n" + "A:" + " " * 100_000 + "\nB:" * 10_000}),
        lambda: mathvision.draft({**VERSE, "options": [], "answer": "1" + " " * 100_000 + "{degree"}),
        lambda: mmmu.draft({**VERSE, "question": "<image " * 100_000, "options": "[]"}),
    ],
    ids="refusal thought marked name reason number named_value base64"
    " options marks query choices unit image_marks".split(),
)
def test_a_long_run_is_read_once(call):
    start = time.process_time()
    call()
    assert time.process_time() - start < 10  # of the processor; once for each place it would be minutes


def test_what_the_patterns_find_is_what_they_found():
    for text in ("I'm sorry, I can't help.", "<think>\nI cannot see it", "**<think> As an AI", "\n\nSorry, no"):
        assert filters.reject_description(reply(text)).filter == "refusal"
    assert filters.reject_description(reply("A red square. I'm sorry to say it is small.")) is None
    assert stated_answer("\\boxed{3}\n\n  **Answer:** 5")[0] == "5"
    assert stated_answer("$x = \\boxed{2}$, $y = \\boxed{7}$")[0] == "x=2, y=7"
    assert [gold_kind(text, ()) for text in ("1,234.5 cm", "12", "12.", ".5", "-3/4", "1.2.3")] == ["number"] * 5 + [
        "expression"
    ]
    assert gold_of(r"\mathrm{Area of it} = 5") == "5" and gold_of("h  =  3") == "3" and gold_of("A cube") == "A cube"
    assert grade("Tuesday , because it is the tallest bar", "Tuesday").equivalent is True
