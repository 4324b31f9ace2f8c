"""The questions of a benchmark: all of them, in their official order and number, or an error that says what is wrong.

A converter for training leaves out what it cannot use; here a row that cannot be read is an error, duplicates stay, and
a gold that no grader can score is a gold all the same. Chat markup in a text, for which training rejects a row, is
taken apart (`data_tools.formats.markup`), and `extra["markup_escaped"]` says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from data_tools.convert.load import open_rows
from data_tools.convert.pipeline import escaped_draft, pictures_of, sample_of
from data_tools.convert.sources import find
from data_tools.convert.sources.source import Draft, Row, Source, Unreadable, kept
from data_tools.formats.markup import escaped
from data_tools.formats.rows import IMAGE_PLACEHOLDER
from data_tools.formats.sample import DataSample

WORKERS = 2  # threads that decode images
AHEAD = 32  # rows that are read before the first is passed on


@dataclass(frozen=True)
class BenchmarkPart:
    """One table of rows with an official number of questions.

    `source` names a source of `data_tools.convert.sources`, `split` is the hub's. `n` is the official number of
    questions, of those rows whose `extra` has the values of `keep`.
    """

    name: str
    source: str
    split: str
    n: int
    keep: Mapping[str, str] = field(default_factory=dict)


def read_part(part: BenchmarkPart, where: str, prefix: str, limit: int | None = None) -> list[DataSample]:
    """The questions of a part, from a file, a folder or a hub name, with ids that begin with `prefix`.

    An id is `prefix`/official id, or `prefix`/row-N where the file gives none or gives it twice. `extra` has the
    official columns, the name of the part as `part`, and the gold as the file writes it as `answer`.

    Args:
        limit: only this many, the first; then a file may have fewer rows than the official number. What comes of them
            is not the benchmark's: say so beside every number.

    Raises:
        ValueError: nothing there, a row that cannot be read (names it), or another number of questions than `part.n`.
    """
    source = find(part.source)
    opened = open_rows(source, where, part.split)
    drafts = itertools.islice(_drafts(source, part, opened.rows, where), limit)

    def sample(found: tuple[str, str, Draft]) -> DataSample:
        place, id_, draft = found
        try:
            return sample_of(draft, source.name, f"{prefix}/{id_}", pictures_of(draft, opened.folder))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error

    samples: list[DataSample] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        while chunk := list(itertools.islice(drafts, AHEAD)):
            samples += pool.map(sample, chunk)
    _check_number(part, where, len(samples), limit)
    return samples


def _check_number(part: BenchmarkPart, where: str, n: int, limit: int | None) -> None:
    kept = "".join(f" with {key} {value}" for key, value in part.keep.items())
    if n != part.n and limit is None:
        raise ValueError(
            f"{where}: {n} questions{kept}, but {part.source} has {part.n} in {part.split}: the file is not the whole"
            " split. With a limit on the questions it can be used, and every number is marked as limited"
        )
    if not n:
        raise ValueError(f"{where}: no question{kept}")


def _drafts(
    source: Source, part: BenchmarkPart, rows: Iterator[Row | Unreadable], where: str
) -> Iterator[tuple[str, str, Draft]]:
    """Of each row that the part keeps: where it is, its id, and its draft."""
    seen: set[str] = set()
    for index, row in enumerate(rows):
        place = f"{where}, row {index}{_named(source, row)}"
        draft = _draft(source, row, place)
        if any(str(draft.extra.get(key)) != value for key, value in part.keep.items()):
            continue
        id_ = "-".join(str(draft.extra.get(key, "")) for key in source.identity)
        if not id_.strip("-") or id_ in seen:
            id_ = f"row-{index}"
        seen.add(id_)
        yield place, id_, replace(draft, extra={"answer": draft.gold} | dict(draft.extra) | {"part": part.name})


def _named(source: Source, row: Row | Unreadable) -> str:
    """What the row calls itself, for messages."""
    if isinstance(row, Unreadable):
        return ""
    ids = [f"{key} {row[key]}" for key in source.identity if row.get(key) not in (None, "")]
    return f" ({', '.join(ids)[:100]})" if ids else ""


def _draft(source: Source, row: Row | Unreadable, place: str) -> Draft:
    if isinstance(row, Unreadable):
        raise ValueError(f"{place}: {row.text}")
    try:
        draft = source.draft(row)
        draft = replace(draft, extra=kept(row, "index") | dict(draft.extra))  # VLMEvalKit finds its questions by it
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    except (TypeError, AttributeError, LookupError) as error:  # a column of another type than documented
        raise ValueError(f"{place}: {type(error).__name__}: {error}") from error
    if lacking := [column for column in source.official(draft) if column not in draft.extra]:
        raise ValueError(f"{place}: column {lacking[0]} is missing or empty, and the official scoring needs it")
    safe = _without_markup(draft)
    return draft if _texts(safe) == _texts(draft) else replace(safe, extra=dict(safe.extra) | {"markup_escaped": True})


def _texts(draft: Draft) -> tuple[Any, ...]:
    return draft.question, *draft.options, draft.gold, *draft.other_golds, draft.extra


def _without_markup(draft: Draft) -> Draft:
    """The draft with no markup in its texts, `<image>` included where it does not stand once for each image."""
    safe = escaped_draft(draft)
    places = "".join((safe.question, *safe.options)).count(IMAGE_PLACEHOLDER)
    if places not in (0, len(safe.images)):
        safe = replace(safe, question=escaped(safe.question), options=[escaped(text) for text in safe.options])
    return replace(safe, extra={key: _escaped_value(value, len(safe.images)) for key, value in safe.extra.items()})


def _escaped_value(value: Any, images: int) -> Any:
    if isinstance(value, list):
        return [_escaped_value(entry, images) for entry in value]
    if not isinstance(value, str):
        return value
    return escaped(value, images=value.count(IMAGE_PLACEHOLDER) == images)
