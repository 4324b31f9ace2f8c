"""Labelled responses that were written before they were run: what is right stays right.

`grading_blind.jsonl` is by an author who saw neither the grader nor its tests, the others are by one who knew it, the
third (without marks, in Chinese or prose) after the second had been mended. They are as they were written. What was
wrong at first sight has been mended in part; docs/grading.md records it.
"""

import json
from pathlib import Path

import pytest

from rewards.grading import grade_response

DATA = Path(__file__).parents[1] / "data"
# rows, right answers among them, and how many of these are still taken for wrong (at first sight 11, 15 and 12)
BATCHES = {
    "grading_blind.jsonl": (200, 120, 0),
    "grading_second.jsonl": (120, 78, 1),
    "grading_third.jsonl": (60, 39, 6),
}


@pytest.mark.parametrize("name", BATCHES)
def test_no_more_is_wrong_than_is_known(name):
    rows = [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    verdicts = [grade_response(row["pred"], row["gold"], options=row.get("options")).equivalent for row in rows]
    missed = [row for row, verdict in zip(rows, verdicts, strict=True) if row["expected"] and verdict is not True]
    taken = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict and not row["expected"]]
    assert (len(rows), sum(row["expected"] for row in rows)) == BATCHES[name][:2]
    assert len(missed) <= BATCHES[name][2], missed
    assert not taken, "a wrong answer is taken for right"
