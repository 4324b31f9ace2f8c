"""The rows of a data file in the one form that `data_tools.inspect` reports on, whatever their format is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avar_rl.runtime.evidence import Evidence, read_evidence
from data_tools.convert.pipeline import gold_kind
from data_tools.formats.rows import IMAGE_PLACEHOLDER, parquet_columns, parquet_rows, row_format
from data_tools.formats.sample import COLUMNS, DataSample, read_samples
from data_tools.pass_rates import row_pass_rate
from data_tools.validate import check_text, check_types, gold_of_chat, row_id
from rewards.sample import row_options, row_other_golds

_MARKS = re.compile(rf"^(?:\s*{IMAGE_PLACEHOLDER})+")


@dataclass(frozen=True)
class InspectedRow:
    """One row: a converted sample, an RL row or a chat row.

    `text` is what the user says, the question and its options; `prompt` are the turns before the model's; `images` are
    encoded files, or paths relative to the folder of the file. `source`, `kind` and `gold_kind` are empty where the row
    does not say them, `gold`, `response` and `pass_rate` None where it has none. `evidence` are the boxes of each
    image, () without any. `faults` say what is wrong with it, images and boxes aside.
    """

    id: str
    text: str = ""
    prompt: Sequence[dict[str, str]] = ()
    images: Sequence[Any] = ()
    gold: str | None = None
    source: str = ""
    kind: str = ""
    gold_kind: str = ""
    options: Sequence[str] = ()
    other_golds: Sequence[str] = ()
    response: str | None = None
    pass_rate: float | None = None
    evidence: Evidence = ()
    faults: Sequence[str] = ()


def grade_gold(gold: str) -> None:
    """Raises ValueError where a gold answer is no use: the grader refuses it, or does not find it equal to itself."""
    from rewards.shipped.accuracy import accuracy

    score = accuracy(f"<answer>{gold}</answer>", gold)
    if score != 1.0:
        raise ValueError(f"the gold answer {gold!r} is graded {score} against itself")


def of_sample(sample: DataSample) -> InspectedRow:
    """A converted sample as a row to report on."""
    try:
        for gold in sample.golds:
            grade_gold(gold)
        faults = []
    except ValueError as error:
        faults = [str(error)]
    return InspectedRow(
        id=sample.id,
        text=_text([sample.text]),
        prompt=[{"role": "user", "content": sample.prompt}],
        images=sample.images,
        gold=sample.gold,
        source=sample.source,
        gold_kind=sample.gold_kind,
        options=sample.options,
        other_golds=sample.other_golds,
        response=sample.response,
        evidence=sample.evidence,
        faults=faults,
    )


def of_training_row(index: int, row: dict[str, Any]) -> InspectedRow:
    """An RL row or a chat row as a row to report on; where it has no id, `index`, its place in the file, names it."""
    id = row_id(row) or f"row {index}"
    if faults := check_types(row):
        return InspectedRow(id=id, faults=faults)
    images = [(entry or {}).get("bytes") for entry in row["images"] or ()]
    if faults := check_text(row, grade_gold):
        return InspectedRow(id=id, images=images, faults=faults)
    return _of_chat(id, row, images) if "messages" in row else _of_rl(id, row, images)


def _of_rl(id: str, row: dict[str, Any], images: Sequence[Any]) -> InspectedRow:
    extra, gold = row.get("extra_info") or {}, row["reward_model"]["ground_truth"]
    options = row_options(extra)
    return InspectedRow(
        id=id,
        text=_text(turn["content"] for turn in row["prompt"]),
        prompt=row["prompt"],
        images=images,
        gold=gold,
        source=row["data_source"] or "",
        kind=extra.get("kind") or "",
        gold_kind=extra.get("gold_kind") or gold_kind(gold, options),
        options=options,
        other_golds=row_other_golds(extra),
        pass_rate=row_pass_rate(extra),
        evidence=read_evidence(extra.get("evidence")),
    )


def _of_chat(id: str, row: dict[str, Any], images: Sequence[Any]) -> InspectedRow:
    *prompt, response = row["messages"]
    gold = gold_of_chat(row["messages"]) or ""
    return InspectedRow(
        id=id,
        text=_text(turn["content"] for turn in prompt),
        prompt=prompt,
        images=images,
        gold=gold,
        gold_kind=gold_kind(gold, ()),
        response=response["content"],
    )


def _text(contents: Iterable[str]) -> str:
    """What was said, without the marks of images in front of it; marks inside say something about the question."""
    return "\n".join(_MARKS.sub("", content).strip() for content in contents)


def read_inspected(path: Path) -> Iterator[InspectedRow]:
    """The rows of a parquet file in order, a small batch in memory at a time; its columns say which format it has.

    Raises:
        ValueError: no such file, no parquet, neither samples nor RL nor chat rows, or a faulty sample.
    """
    columns = parquet_columns(path)
    if set(COLUMNS) <= set(columns):
        yield from map(of_sample, read_samples(path))
        return
    try:
        row_format(columns, path)
    except ValueError as error:
        raise ValueError(
            f"{error}; samples, as `python -m data_tools.convert` writes them, {', '.join(COLUMNS)}"
        ) from error
    for index, row in enumerate(parquet_rows(path)):
        yield of_training_row(index, row)
