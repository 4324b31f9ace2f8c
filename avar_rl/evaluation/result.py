"""What an evaluation found: graded responses → figures of one model → JSON, table."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from avar_rl.evaluation.generate import Response, Responses
from avar_rl.evaluation.questions import Question
from avar_rl.vas import VasSummary
from rewards.shipped.accuracy import accuracy, extract_answer
from rewards.shipped.format import format_reward

# The figures of a model in summary.json; the rest of its file is detail.
STAGE_KEYS = ("name", "accuracy", "accuracy_sampled", "format", "vas", "image_mass", "system_mass", "n")


@dataclass(frozen=True)
class Graded:
    """A response with its rewards."""

    id: str
    kind: str
    gold: str
    sample: int | None  # None: greedy
    response: str
    answer: str | None
    accuracy: float
    format: float
    tokens: int
    truncated: bool


def grade(questions: Sequence[Question], responses: Sequence[Responses]) -> list[Graded]:
    """The greedy response of every question, then its samples, question by question."""
    graded = []
    for question, drawn in zip(questions, responses, strict=True):
        graded.append(_grade(question, drawn.greedy, None))
        graded += [_grade(question, response, number) for number, response in enumerate(drawn.sampled)]
    return graded


def _grade(question: Question, response: Response, sample: int | None) -> Graded:
    return Graded(
        id=question.id,
        kind=question.kind,
        gold=question.gold,
        sample=sample,
        response=response.text,
        answer=extract_answer(response.text),
        accuracy=accuracy(response.text, question.gold, options=question.options),
        format=format_reward(response.text),
        tokens=len(response.ids),
        truncated=response.truncated,
    )


def figures(name: str, graded: Sequence[Graded], vas: VasSummary | None) -> dict[str, Any]:
    """The figures of a model. Accuracy, format, length and truncation are of the greedy responses unless named sampled.

    `vas`, `image_mass` and `system_mass` are null where no question has an image; `accuracy_sampled` without samples.
    """
    greedy = [g for g in graded if g.sample is None]
    sampled = [g for g in graded if g.sample is not None]
    by_kind = defaultdict(list)
    for g in greedy:
        by_kind[g.kind].append(g.accuracy)
    return {
        "name": name,
        "accuracy": fmean(g.accuracy for g in greedy),
        "accuracy_sampled": fmean(g.accuracy for g in sampled) if sampled else None,
        "format": fmean(g.format for g in greedy),
        "vas": vas.vas if vas else None,
        "image_mass": vas.image_mass if vas else None,
        "system_mass": vas.system_mass if vas else None,
        "n": len(greedy),
        "samples": len(sampled) // len(greedy),
        "format_sampled": fmean(g.format for g in sampled) if sampled else None,
        "truncated": fmean(float(g.truncated) for g in graded),
        "response_tokens": fmean(g.tokens for g in graded),
        "accuracy_by_kind": {kind: fmean(values) for kind, values in sorted(by_kind.items())},
        "attention": asdict(vas) if vas else None,
    }


def write_json(value: Any, path: Path) -> None:
    """Whole or not at all."""
    _write(json.dumps(value, indent=2) + "\n", path)


def write_responses(graded: Iterable[Graded], path: Path) -> None:
    """One JSON object a line. Whole or not at all."""
    _write("".join(json.dumps(asdict(g), ensure_ascii=False) + "\n" for g in graded), path)


def _write(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def print_table(stages: Sequence[dict[str, Any]]) -> None:
    """The figures of several models, one a row."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for title in ("model", "accuracy", "sampled", "format", "VAS", "image mass", "system mass", "questions"):
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    for stage in stages:
        shares = [_shown(stage[key], "{:.1%}") for key in ("accuracy", "accuracy_sampled", "format")]
        masses = [_shown(stage[key], "{:.4g}") for key in ("vas", "image_mass", "system_mass")]
        table.add_row(stage["name"], *shares, *masses, str(stage["n"]))
    console = Console()
    # A log file has no width of its own, and rich would then assume 80 columns
    console.print(table) if console.is_terminal else Console(width=120).print(table)


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
