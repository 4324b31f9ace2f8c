"""The answer grader: is an answer equal to the gold answer? `grade` for answers, `grade_response` for responses."""

from rewards.grading.compare.policy import DEFAULT, Policy
from rewards.grading.golds import KINDS, check_gold, gold_tier
from rewards.grading.grader import grade, grade_response, undecided
from rewards.grading.text.extract import extract_answer, stated_answer
from rewards.grading.verdict import Verdict

__all__ = [
    "DEFAULT",
    "KINDS",
    "Policy",
    "Verdict",
    "check_gold",
    "extract_answer",
    "gold_tier",
    "grade",
    "grade_response",
    "stated_answer",
    "undecided",
]
