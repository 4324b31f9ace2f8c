"""Graders side by side on labelled pairs: how often right, how often wrong and lenient, how fast. Prints tables.

    python benchmarks/grading.py                       ours and math-verify on the pairs of the tests
    python benchmarks/grading.py --graders all         and verl's; mathruler where it can be imported
    python benchmarks/grading.py --throughput          10,000 pairs with 1 % hostile ones through the pool: none is lost

mathruler is no dependency: `pip install --target DIR mathruler pylatexenc` and PYTHONPATH=DIR. Every grader runs in
this process, warmed up by a first pair; a pair that takes longer than --limit counts as undecided (SIGALRM ends it).
Seconds are those of processors, this process's and its workers' (Linux), which a busy machine stretches little.
"""

import argparse
import importlib
import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
PAIRS = Path(__file__).parents[1] / "tests" / "data" / "grading_pairs.jsonl"
HOSTILE = ("9**9**9**9", "99999999!", "(" * 500, "1" * 5000, "__import__('os')", r"\int_0^1 x^{x^{x^x}} dx")
Grader = Callable[[str, str], bool | None]


def ours() -> Grader:
    from rewards.grading import grade
    from rewards.grading.sympy_pool import pool

    pool.shared().warm()
    return lambda pred, gold: grade(pred, gold).equivalent


def math_verify() -> Grader:
    from math_verify import parse, verify

    def graded(pred: str, gold: str) -> bool:
        wrapped = [text if "$" in text or "boxed" in text else f"${text}$" for text in (gold, pred)]
        # None is no time limit to math-verify, though its annotation has none
        gold_trees, trees = (parse(text, parsing_timeout=None) for text in wrapped)  # pyright: ignore[reportArgumentType]
        return verify(gold_trees, trees, timeout_seconds=None)

    return graded


def mathruler() -> Grader:
    grade_answer = importlib.import_module("mathruler.grader").grade_answer

    return lambda pred, gold: bool(grade_answer(pred, gold))


def verl_math() -> Grader:
    from verl.utils.reward_score.math_reward import is_equiv

    return lambda pred, gold: bool(is_equiv(pred, gold))


def verl_dapo() -> Grader:
    from verl.utils.reward_score.math_dapo import normalize_final_answer

    return lambda pred, gold: normalize_final_answer(pred) == normalize_final_answer(gold)


def verl_prime() -> Grader:
    from verl.utils.reward_score.prime_math import grade_answer

    def graded(pred: str, gold: str) -> bool:
        result = grade_answer(pred, gold)
        return bool(result[0] if isinstance(result, tuple) else result)

    return graded


GRADERS = {
    "this grader": ours,
    "math-verify": math_verify,
    "mathruler": mathruler,
    "verl math": verl_math,
    "verl dapo": verl_dapo,
    "verl prime": verl_prime,
}


class LateError(BaseException):
    """A pair took too long. Not an Exception, so that no grader's own handler swallows it."""


def _late(*_):
    raise LateError


def measured(grader: Grader, rows: list[dict], limit_s: float) -> tuple[list[bool | None], float]:
    """What a grader says of each row (None: undecided, raised or late), and the processor seconds for all."""
    signal.signal(signal.SIGALRM, _late)
    verdicts = []
    start = processor_s()
    for row in rows:
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            verdicts.append(grader(row["pred"], row["gold"]))
        except (LateError, Exception):  # noqa: BLE001 (what a grader raises is its result here)
            verdicts.append(None)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return verdicts, processor_s() - start


def processor_s() -> float:
    """Seconds that processors have worked for this process and all below it, ended ones included."""
    found: dict[str, tuple[str, int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended: the one above it has its time
        found[stat.parent.name] = fields[1], sum(map(int, fields[11:15]))
    family = {str(os.getpid())}
    while more := {process for process, (parent, _) in found.items() if parent in family} - family:
        family |= more
    return sum(found[process][1] for process in family) / os.sysconf("SC_CLK_TCK")


def load(name: str) -> Grader | None:
    """A grader of GRADERS, warmed up by a first pair; None: its library is not installed, which is said."""
    try:
        grader = GRADERS[name]()
    except ImportError as error:
        print(f"{name}: not installed ({error})", file=sys.stderr)
        return None
    grader("1", "2")
    return grader


def compare(names: list[str], rows: list[dict], limit_s: float) -> None:
    """Prints a table of what the graders say of `rows`, and how fast; pairs that take over `limit_s` are undecided."""
    from avar_rl.runtime.tables import console, table

    columns = ["grader", "right", "false positives", "false negatives", "undecided", "processor s", "speed of ours"]
    found = table(columns, text=["grader"])
    negatives = sum(not row["expected"] for row in rows)
    ours_s = None
    for name in names:
        grader = load(name)
        if grader is None:
            continue
        verdicts, seconds = measured(grader, rows, limit_s)
        ours_s = seconds if name == "this grader" else ours_s
        counts = Counter((row["expected"], verdict) for row, verdict in zip(rows, verdicts, strict=True))
        right = counts[True, True] + counts[False, False]
        found.add_row(
            name,
            f"{right / len(rows):.1%}",
            f"{counts[False, True]} of {negatives}",
            f"{counts[True, False]} of {len(rows) - negatives}",
            str(counts[True, None] + counts[False, None]),
            f"{seconds:.2f}",
            f"{seconds / ours_s:.1f} x" if ours_s else "",
        )
    console().print(found)


def throughput(rows: list[dict], pairs: int) -> None:
    """Grades so many distinct pairs (no cache answers), every hundredth of them hostile, and prints the speed."""
    from rewards.grading import grade
    from rewards.grading.sympy_pool import pool

    pool.shared().warm()
    start, start_processor, verdicts = time.perf_counter(), processor_s(), Counter()
    for number in range(pairs):
        row = rows[number % len(rows)]
        pred = HOSTILE[number // 100 % len(HOSTILE)] if number % 100 == 0 else row["pred"]
        verdicts[grade(pred + " " * (number // len(rows)), row["gold"]).equivalent] += 1
    seconds, worked = time.perf_counter() - start, processor_s() - start_processor
    print(f"{pairs} pairs in {seconds:.1f} s ({worked:.1f} of processors): {dict(verdicts)},", end=" ")
    print(f"{pairs - verdicts.total()} lost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, default=PAIRS, help='JSONL with "pred", "gold", "expected"')
    parser.add_argument(
        "--graders", nargs="+", default=["this grader", "math-verify"], help=f"all, or of {list(GRADERS)}"
    )
    parser.add_argument("--limit", type=float, default=5.0, help="seconds for a pair")
    parser.add_argument("--throughput", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rows = [json.loads(line) for line in options.pairs.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row.get("form", "answer") == "answer" and row.get("tier") != "contested"]
    rows = [row for row in rows if not row.get("options")]  # the other graders take none
    if options.throughput:
        throughput(rows, 10_000)
    else:
        compare(list(GRADERS) if options.graders == ["all"] else options.graders, rows, options.limit)


if __name__ == "__main__":
    main()
