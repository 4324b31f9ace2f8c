"""What an evaluation found: graded responses → figures of one model → JSON, table."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from avar_rl.runtime import tables
from avar_rl.runtime.files import write_whole
from rewards.shipped.accuracy import accuracy, extract_answer
from rewards.shipped.format import format_reward

if TYPE_CHECKING:  # torch is not needed to read results
    from avar_rl.evaluation.answering.generate import Response, Responses
    from avar_rl.evaluation.answering.questions import Question
    from avar_rl.vas import VasSummary

# The figures of a model in summary.json; the rest of its file is detail.
STAGE_KEYS = ("name", "accuracy", "accuracy_sampled", "format", "vas", "image_mass", "system_mass", "n")


@dataclass(frozen=True)
class Graded:
    """A response to a question, and what the rewards say of it."""

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
    """Grades the responses to each question: the greedy one first, then its samples; question by question."""
    graded = []
    for question, drawn in zip(questions, responses, strict=True):
        graded.append(_grade(question, drawn.greedy, None))
        graded += [_grade(question, response, number) for number, response in enumerate(drawn.sampled)]
    return graded


def _grade(question: Question, response: Response, sample: int | None) -> Graded:
    return Graded(
        id=question.conversation.id,
        kind=question.kind,
        gold=question.gold,
        sample=sample,
        response=response.text,
        answer=extract_answer(response.text),
        accuracy=accuracy(response.text, (question.gold, *question.other_golds), options=question.options),
        format=format_reward(response.text, response.prefill),
        tokens=len(response.ids),
        truncated=response.truncated,
    )


def figures(name: str, graded: Sequence[Graded], vas: VasSummary | None) -> dict[str, Any]:
    """The figures of a model, ready for JSON, from its graded responses and its attention.

    Accuracy, format and accuracy by kind are of the greedy responses unless named sampled; `truncated` and
    `response_tokens` are means over all. `vas`, `image_mass` and `system_mass` are None where `vas` is (no question has
    an image), the sampled figures where there are no samples.
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


def write_responses(graded: Iterable[Graded], path: Path) -> None:
    """Writes the responses as JSON, one object per line; the file is there whole or not at all."""
    write_whole(path, "".join(json.dumps(asdict(g), ensure_ascii=False) + "\n" for g in graded))


def print_table(stages: Sequence[dict[str, Any]]) -> None:
    """Prints the figures of several models, one per line."""
    table = tables.table(
        ("model", "greedy", "sampled", "format", "VAS", "image", "system", "n"),
        text=("model",),
        title="accuracy (greedy, sampled), format, VAS, image mass, system mass, questions",
    )
    for stage in stages:
        shares = [_shown(stage[key], "{:.1%}") for key in ("accuracy", "accuracy_sampled", "format")]
        masses = [_shown(stage[key], "{:.4g}") for key in ("vas", "image_mass", "system_mass")]
        table.add_row(tables.cut(stage["name"]), *shares, *masses, str(stage["n"]))
    tables.console().print(table)


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
