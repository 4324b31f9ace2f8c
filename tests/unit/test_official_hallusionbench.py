"""HallusionBench by rule: yes or no."""

import pytest

from avar_rl.evaluation.benchmarks.scoring.official.hallusionbench import read
from tests.unit.benchmark_questions import asked

YES, NO = asked("yes", gt_answer="1"), asked("no", gt_answer="0")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("No, it is red", "no"),
        ("The answer is no", "no"),
        ("**Yes**, they are parallel", "yes"),
        ("(yes)", "yes"),
        ("Yes, there are no cats", "yes"),  # both words: the first word
        ("It has no stripes; the answer is yes", "yes"),  # both: the marked answer
        ("It may be yes or no", None),
        ("1", None),
        ("I know nothing", None),
        ("", None),
    ],
)
def test_rule(text, says):
    for question, gold in ((YES, "yes"), (NO, "no")):
        found = read(question, text)
        assert (found.answer, found.right) == (says, says == gold)
