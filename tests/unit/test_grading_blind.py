"""200 labelled responses whose author saw neither the grader nor its tests: what is right stays right.

They are kept as they were written; what was wrong at first sight has been mended since, and docs/grading.md records it.
"""

import json
from pathlib import Path

from rewards.grading import grade_response

PATH = Path(__file__).parents[1] / "data" / "grading_blind.jsonl"
ROWS = [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]
MISSED = 0  # 12 at first sight


def test_no_more_is_wrong_than_is_known():
    assert len(ROWS) == 200 and sum(row["expected"] for row in ROWS) == 120
    wrong = [
        (row["pred"], row["gold"])
        for row in ROWS
        if grade_response(row["pred"], row["gold"], options=row.get("options")).equivalent is not row["expected"]
    ]
    assert len(wrong) <= MISSED, wrong


def test_no_wrong_answer_is_taken_for_right():
    taken = [
        row["pred"]
        for row in ROWS
        if not row["expected"] and grade_response(row["pred"], row["gold"], options=row.get("options")).equivalent
    ]
    assert not taken
