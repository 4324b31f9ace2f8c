"""The part of a response that official rules see, and texts that must not hold a rule up."""

import time

import pytest

from avar_rl.evaluation.benchmarks.scoring.both_columns import OFFICIAL, by_official_rules, by_our_grader
from avar_rl.evaluation.benchmarks.scoring.official.reading import final_text
from tests.unit.benchmark_questions import asked


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        ("B", "B"),
        (" \nB\n", "B"),
        ("<think>A or B</think>\n\nB", "B"),
        ("<think>a</think><think>b</think>C", "C"),
        ("<think>A</think><answer>\nB\n</answer>", "B"),
        ("<answer>A</answer> no, <answer>B</answer> it is", "B"),
        ("<answer>B", "<answer>B"),  # not closed: nothing is taken out
        ("B</answer>", "B</answer>"),
        ("<think>It is B", None),  # not closed: no answer
        ("<think>a</think> B <think> or", None),
        ("so it is</think>B", "B"),  # the prompt opened it
        ("<answer>A</answer></think>B", "B"),
        ("", ""),
    ],
)
def test_final_text(turn, text):
    assert final_text(turn) == text


QUESTIONS = {
    "mathvista": asked("A", options=("red", "blue"), answer="red", question_type="multi_choice", answer_type="text"),
    "mathvision": asked("5", answer="5"),
    "mathvision_testmini": asked("A", options=tuple("ABCDE")),
    "mathverse": asked("5", question_type="free-form"),
    "mathverse_vision_only": asked("B", question_type="multi-choice"),
    "mmmu": asked("5", question_type="open"),
    "mmmu_pro": asked("A", options=tuple(f"option {n}" for n in range(10)), question_type="multiple-choice"),
    "mmstar": asked("A", options=("a", "b", "c", "d")),
    "hallusionbench": asked("yes", gt_answer="1"),
}
LONG = 100_000  # characters
HOSTILE = {
    "digits": "1" * LONG,
    "digits and comma": "1" * LONG + ",",
    "letters": "a" * LONG,
    "spaces": " " * LONG + "B",
    "lines": "\n" * LONG + "B",
    "braces": "\\boxed{" * (LONG // 7),
    "nested": "{" * (LONG // 2) + "}" * (LONG // 2),
    "one box": "\\boxed{" + "x" * LONG + "}",
    "brackets": "[" * LONG,
    "lettered": "(A)" * (LONG // 3),
    "points": "." * LONG,
    "equals": "=" * LONG,
    "phrases": "the answer is " * (LONG // 14),
    "thoughts": "<think>" * (LONG // 7),
    "answers": "<answer>" * (LONG // 8),
    "marks": "/" * LONG,
    "exponents": "1e" * (LONG // 2),
    "code": "__import__('os').system('false')",
    "surrogate": "\ud800 B",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_holds_a_rule_up(name):
    assert QUESTIONS.keys() == OFFICIAL.keys()
    begin = time.process_time()
    for benchmark, question in QUESTIONS.items():
        by_official_rules(benchmark, question, HOSTILE[name])
    by_our_grader(QUESTIONS["mmmu"], HOSTILE[name])
    by_our_grader(QUESTIONS["mmmu_pro"], HOSTILE[name])
    assert time.process_time() - begin < 10  # a rule that takes the square of the length takes minutes
