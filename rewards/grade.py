"""Grades pairs of answers on the command line: one pair with its reasons, or a file of pairs."""

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rewards.grading import Policy, Verdict

FORMS = ("answer", "response")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rewards.grade", description=__doc__)
    parser.add_argument("prediction", nargs="?", help="the answer to grade")
    parser.add_argument("gold", nargs="?", help="the answer it should be")
    parser.add_argument("--input", type=Path, help='JSONL with "pred", "gold" and optional "form": answer or response')
    parser.add_argument(
        "--output", type=Path, help='the same rows with "equivalent" (true, false, null), "tier", "seconds"'
    )
    parser.add_argument("--form", choices=FORMS, default="answer", help="of rows without one, and of PRED")
    parser.add_argument(
        "--kind", choices=("choice", "text", "maths"), help="what the gold is, where its text leaves it open"
    )
    parser.add_argument(
        "--policy", action="append", default=[], metavar="NAME=VALUE", help="see docs/grading.md; repeatable"
    )
    options = parser.parse_args(argv)
    pair = options.prediction is not None and options.gold is not None
    if pair == (options.input is not None) or (options.input is None) != (options.output is None):
        parser.error("give either PRED and GOLD, or --input and --output")
    return options


def read_policy(settings: list[str]) -> "Policy":
    """ValueError: an unknown name, or a value of another type."""
    from dataclasses import fields

    from rewards.grading import Policy

    defaults = {field.name: field.default for field in fields(Policy)}
    chosen = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in defaults:
            raise ValueError(f"--policy {setting}: unknown name {name!r}; known: {', '.join(defaults)}")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = None
        number = isinstance(defaults[name], float) and type(value) is int
        if type(value) is not type(defaults[name]) and not number:
            raise ValueError(f"--policy {setting}: {name} takes a value like {json.dumps(defaults[name])}")
        chosen[name] = value
    return Policy(**chosen)


def read_rows(path: Path) -> list[dict]:
    """ValueError: the file cannot be read, or a line is no pair."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogatepass").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--input {path} cannot be read: {error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict) or not {"pred", "gold"} <= row.keys() or row.get("form", "answer") not in FORMS:
            raise ValueError(
                f'{path}, line {number}: a row needs "pred", "gold" and, if any, a "form" of {" or ".join(FORMS)}'
            )
        rows.append(row)
    return rows


def _verdict(pred: str | None, gold: str, form: str, kind: str | None, policy: "Policy") -> "Verdict":
    from rewards.grading import grade, grade_response

    if form == "response" and isinstance(pred, str):
        return grade_response(pred, gold, kind=kind, policy=policy)
    return grade(pred if pred is None or isinstance(pred, str) else json.dumps(pred), gold, kind=kind, policy=policy)


def grade_rows(rows: list[dict], form: str, kind: str | None, policy: "Policy") -> list[dict]:
    """The rows with their verdicts; a gold that cannot be read gets null, the tier "gold" and the reason."""
    from tqdm import tqdm

    graded = []
    for row in tqdm(rows, desc="grading", unit="pair", disable=not sys.stderr.isatty()):
        start = time.perf_counter()
        try:
            verdict = _verdict(row["pred"], row["gold"], row.get("form", form), row.get("kind", kind), policy)
            found = {"equivalent": verdict.equivalent, "tier": verdict.tier}
        except ValueError as error:
            found = {"equivalent": None, "tier": "gold", "error": str(error)}
        graded.append(row | found | {"seconds": round(time.perf_counter() - start, 6)})
    return graded


def _write(rows: list[dict], path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise ValueError(f"--output {path} cannot be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)


def summary(rows: list[dict]) -> str:
    counts = Counter(row["equivalent"] for row in rows)
    tiers = Counter(row["tier"] for row in rows)
    lines = [
        f"{len(rows)} pairs: {counts[True]} equivalent, {counts[False]} not, {counts[None] - tiers['gold']} undecided,"
        f" {tiers['gold']} with a gold that cannot be read",
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
            verdict = _verdict(options.prediction, options.gold, options.form, options.kind, policy)
            word = {True: "equivalent", False: "not equivalent", None: "undecided"}[verdict.equivalent]
            print(f"{word} (tier: {verdict.tier})\n  prediction: {verdict.prediction}\n  gold:       {verdict.gold}")
            print(f"  because:    {verdict.reason}" if verdict.reason else "", end="\n" if verdict.reason else "")
            return 0
        rows = read_rows(options.input)
        from rewards.grading.sympy_pool import pool

        pool.shared().warm()  # starting a worker is no pair's time
        graded = grade_rows(rows, options.form, options.kind, policy)
        _write(graded, options.output)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(summary(graded))
    return 0


if __name__ == "__main__":
    sys.exit(main())
