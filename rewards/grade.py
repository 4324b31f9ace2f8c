"""Grades pairs of answers on the command line: one pair with its reasons, or a file of pairs.

Exit status: 0; 1 where lines of the file are no pairs (they are reported, the others are graded); 2 for a mistake in
the arguments or a file that cannot be read or written.
"""

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewards.grading import Policy, Verdict

FORMS = ("answer", "response")
KINDS = ("choice", "text", "maths")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="avar grade", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prediction", nargs="?", help="the answer to grade")
    parser.add_argument("gold", nargs="?", help="the answer it should be")
    parser.add_argument(
        "--input", type=Path, help='JSONL with "pred", "gold" (text or numbers) and optional "form": answer or response'
    )
    parser.add_argument(
        "--output", type=Path, help='the same rows with "equivalent" (true, false, null), "tier", "seconds"'
    )
    parser.add_argument("--form", choices=FORMS, default="answer", help="of rows without one, and of PRED")
    parser.add_argument("--kind", choices=KINDS, help="what the gold is, where its text leaves it open")
    parser.add_argument(
        "--policy", action="append", default=[], metavar="NAME=VALUE", help="see docs/grading.md; repeatable"
    )
    options = parser.parse_args(argv)
    pair = options.prediction is not None and options.gold is not None
    if pair == (options.input is not None) or (options.input is None) != (options.output is None):
        parser.error("give either PRED and GOLD, or --input and --output")
    return options


def read_policy(given: list[str]) -> "Policy":
    """The policy that differs from the default in what `NAME=VALUE` texts say.

    Raises:
        ValueError: a name is unknown, or a value is none that the name takes.
    """
    from avar_rl.runtime.settings import parse, settings
    from rewards.grading import Policy

    values = {name: text for name, _, text in (one.partition("=") for one in given)}
    return Policy(**asdict(parse(settings(Policy), values, "--policy")))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The pairs of a JSONL file; a line that is no pair becomes {"line", "error"}, with what is wrong with it.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogatepass").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--input {path} cannot be read: {error}") from None
    return [_row(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]


def _row(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"line": number, "error": f"{path}, line {number} is not JSON: {error}"}
    pair = isinstance(row, dict) and {"pred", "gold"} <= row.keys()
    if not pair or row.get("form", "answer") not in FORMS or row.get("kind") not in (None, *KINDS):
        return {
            "line": number,
            "error": f'{path}, line {number}: a row needs "pred", "gold" and, if any, a "form" of {" or ".join(FORMS)} '
            f'and a "kind" of {", ".join(KINDS)}',
        }
    return row


def _verdict(pred: Any, gold: Any, form: str, kind: str | None, policy: "Policy") -> "Verdict":
    from rewards.grading import grade, grade_response

    if form == "response" and isinstance(pred, str):
        return grade_response(pred, _text(gold), kind=kind, policy=policy)
    return grade(_text(pred), _text(gold), kind=kind, policy=policy)


def _text(answer: Any) -> Any:
    """An answer as JSON holds it: text and null as they are, numbers (and what else there is) written out."""
    return answer if answer is None or isinstance(answer, str) else json.dumps(answer)


def grade_rows(rows: list[dict[str, Any]], form: str, kind: str | None, policy: "Policy") -> list[dict[str, Any]]:
    """The rows of `read_rows` with their verdicts: "equivalent", "tier" and the "seconds" it took.

    A row whose gold cannot be read gets null, the tier "gold" and the "error"; a line that is no pair null and the tier
    "line".

    Args:
        form: "answer" or "response", of rows without a form.
        kind: what the golds of rows without a kind are ("choice", "text", "maths"); None: as their text says.
    """
    from tqdm import tqdm

    graded = []
    for row in tqdm(rows, desc="grading", unit="pair", disable=not sys.stderr.isatty()):
        start = time.perf_counter()
        if "pred" not in row:
            found = {"equivalent": None, "tier": "line"}
        else:
            try:
                verdict = _verdict(row["pred"], row["gold"], row.get("form", form), row.get("kind", kind), policy)
                found = {"equivalent": verdict.equivalent, "tier": verdict.tier}
            except ValueError as error:
                found = {"equivalent": None, "tier": "gold", "error": str(error)}
        graded.append(row | found | {"seconds": round(time.perf_counter() - start, 6)})
    return graded


def summary(rows: list[dict[str, Any]]) -> str:
    """What came out, in a few lines: counts of verdicts and tiers, time, and (with "expected") how many are right.

    Args:
        rows: those of `grade_rows`.
    """
    bad = sum(row["tier"] == "line" for row in rows)
    rows = [row for row in rows if row["tier"] != "line"]
    counts = Counter(row["equivalent"] for row in rows)
    tiers = Counter(row["tier"] for row in rows)
    lines = [
        f"{len(rows)} pairs: {counts[True]} equivalent, {counts[False]} not, {counts[None] - tiers['gold']} undecided,"
        f" {tiers['gold']} with a gold that cannot be read" + (f"; {bad} lines are no pairs" if bad else ""),
        "tiers: " + ", ".join(f"{tier} {count}" for tier, count in tiers.most_common()),
    ]
    if rows:
        seconds = sorted(row["seconds"] for row in rows)
        lines.append(
            f"seconds: {sum(seconds):.2f} in all, median {seconds[len(seconds) // 2]:.5f}, longest {seconds[-1]:.3f}"
        )
    if rows and all("expected" in row for row in rows):
        right = sum(row["equivalent"] is row["expected"] for row in rows)
        negatives = [row for row in rows if row["expected"] is False]
        wrong = sum(row["equivalent"] is True for row in negatives)
        lines.append(f"labels: {right} of {len(rows)} right, {wrong} false positives among {len(negatives)} negatives")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    options = _arguments(argv)
    try:
        policy = read_policy(options.policy)
        if options.input is None:
            print(_explained(_verdict(options.prediction, options.gold, options.form, options.kind, policy)))
            return 0
        graded = _grade_file(options, policy)
    except ValueError as error:
        print(f"avar grade: {error}", file=sys.stderr)
        return 2
    print(summary(graded))
    bad = [row for row in graded if row["tier"] == "line"]
    if bad:
        print(f"{len(bad)} lines are no pairs; the first: {bad[0]['error']}", file=sys.stderr)
    return 1 if bad else 0


def _explained(verdict: "Verdict") -> str:
    word = {True: "equivalent", False: "not equivalent", None: "undecided"}[verdict.equivalent]
    lines = [
        f"{word} (tier: {verdict.tier})",
        f"  prediction: {verdict.prediction}",
        f"  gold:       {verdict.gold}",
        f"  because:    {verdict.reason}",
    ]
    return "\n".join(lines if verdict.reason else lines[:-1])


def _grade_file(options: argparse.Namespace, policy: "Policy") -> list[dict[str, Any]]:
    from avar_rl.runtime.files import write_whole
    from rewards.grading.sympy_pool import pool

    rows = read_rows(options.input)
    pool.shared().warm()  # starting a worker is no pair's time
    graded = grade_rows(rows, options.form, options.kind, policy)
    try:
        write_whole(options.output, "".join(json.dumps(row) + "\n" for row in graded))
    except OSError as error:
        raise ValueError(f"--output {options.output} cannot be written: {error}") from None
    return graded


if __name__ == "__main__":
    sys.exit(main())
