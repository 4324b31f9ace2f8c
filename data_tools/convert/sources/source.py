"""What a source is: where its rows come from, which columns they must have, and how one row becomes a draft."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avar_rl.runtime.evidence import Evidence
from data_tools.convert.sources.values import answers_value, list_value, missing, options_value, text_value, written
from data_tools.formats.rows import IMAGE_PLACEHOLDER
from data_tools.formats.sample import letters

Row = Mapping[str, Any]
SHOWN_ANSWERS = 5
IN_THE_IMAGE = "Answer the question in the image."  # for rows whose question is only drawn


class SeveralAnswersError(ValueError):
    """A row that gives several answers, where one gold is wanted."""


@dataclass(frozen=True)
class Unreadable:
    """Stands for a row that the file holds, but that cannot be read; `text` says why."""

    text: str


@dataclass(frozen=True)
class Draft:
    """What a row says, before its images are read and its gold is checked.

    `images` are encoded bytes, {bytes, path}, paths, or PIL images. The rest is as in `data_tools.formats.sample`.
    """

    question: str
    gold: str
    images: Sequence[Any] = ()
    options: Sequence[str] = ()
    response: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    other_golds: Sequence[str] = ()
    evidence: Evidence = ()


def no_own_reader(path: Path) -> None:
    """The reader of a source whose JSON files `datasets` can read."""


def as_it_is(value: Any) -> Any:
    """`value`: of a source that changes nothing."""
    return value


def needs_nothing(draft: Draft) -> tuple[str, ...]:
    """(): of a source whose drafts can be scored by their gold."""
    return ()


def needs_question_type(draft: Draft) -> tuple[str, ...]:
    """Of a benchmark that scores choices and free answers by different rules."""
    return ("question_type",)


def of_any_split(row: Row, split: str) -> bool:
    """True: of a source whose files hold one split each."""
    return True


@dataclass(frozen=True)
class Source:
    """A data set that can be converted.

    `columns`: what the rows must have. `draft` makes a draft of a row and raises ValueError for one that cannot be
    used. `hub`, `configs`: its name on the hub, and there its configurations, whose rows are read in this order.
    `splits`: the hub's names, what is held out first. `read` gives the rows of a local JSON file that is neither a list
    nor JSON lines, None for other files. `survey` is given the columns `surveyed` of all rows of a split and gives the
    source that drafts them: for what only the whole file says.

    A benchmark has more: `for_training` words a draft, which asks as the benchmark does, as training needs it. `tsv`
    makes a row of the hub's columns of one of VLMEvalKit's TSV. `holds` says whether a row is of a split, where a file
    has several. `identity` names the keys of a draft's `extra` that together are the official id of a question.
    `official` gives the columns that the official scoring of a draft needs, all of them keys of its `extra`.
    """

    name: str
    columns: tuple[str, ...]
    draft: Callable[[Row], Draft]
    hub: str | None = None
    configs: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train",)
    read: Callable[[Path], Iterable[Row] | None] = no_own_reader
    survey: Callable[[Iterable[Row]], Source] | None = None
    surveyed: tuple[str, ...] = ()
    for_training: Callable[[Draft], Draft] = as_it_is
    tsv: Callable[[Row], Row] | None = None
    holds: Callable[[Row, str], bool] = of_any_split
    identity: tuple[str, ...] = ()
    official: Callable[[Draft], tuple[str, ...]] = needs_nothing


def numbered_objects(path: Path) -> list[Row] | None:
    """The rows of a JSON file that is one object of objects, {"0": {...}, "1": {...}}; None for any other file."""
    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file)
    except ValueError:
        return None  # JSON lines, or broken: for `datasets` to read or to refuse
    nested = isinstance(content, dict) and content and all(isinstance(row, dict) for row in content.values())
    return list(content.values()) if nested else None


def text_of(row: Row, column: str) -> str:
    """The stripped text of a column of the row; ValueError where it is empty, or no text and no number."""
    text = optional_text(row, column)
    if not text:
        raise ValueError(f"column {column} is empty")
    return text


def optional_text(row: Row, column: str) -> str:
    """The stripped text of a column that may be empty or absent, "" then; ValueError where it is no text."""
    return text_value(row.get(column), column)


def all_answers_of(row: Row, column: str) -> list[str]:
    """The answers in a column of the row, one or more; ValueError: there is none, or one is neither text nor number."""
    found = answers_value(row[column], column)
    if not found:
        raise ValueError(f"column {column} is empty")
    return found


def answer_of(row: Row, column: str) -> str:
    """The one answer in a column of the row, which may be a list of one.

    Raises:
        SeveralAnswersError: there are several.
        ValueError: there is none, or it is neither a text nor a number.
    """
    found = all_answers_of(row, column)
    if len(found) > 1:
        shown = "; ".join(text[:40] for text in found[:SHOWN_ANSWERS])
        raise SeveralAnswersError(f"column {column} gives {len(found)} answers: {shown}")
    return found[0]


def options_of(row: Row, column: str) -> list[str]:
    """The texts of the options in a column of the row, A first, as `values.options_value` reads them; [] for none."""
    return options_value(row[column], column)


def images_of(row: Row, column: str) -> list[Any]:
    """The images in a column of the row, which holds one, a list, or none."""
    return list_value(row[column], column)


def kept(row: Row, *columns: str) -> dict[str, Any]:
    """Those of `columns` that the row has and that are not empty, for a draft's `extra`.

    Raises:
        ValueError: one is no JSON value.
    """
    found = {c: row[c] for c in columns if not missing(row.get(c)) and row[c] not in ("", [])}
    for column, value in found.items():
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False, sort_keys=True).encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"column {column} is no JSON value ({error})") from error
    return found


def columns_within(row: Row, column: str) -> dict[str, Any]:
    """The entries of a column that holds a mapping, or writes one down in a text, as columns of their own; {} for none.

    Raises:
        ValueError: it is neither, or an entry is no JSON value.
    """
    value = row.get(column)
    if missing(value) or value == "":
        return {}
    found = written(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise ValueError(f"column {column} is no mapping: {str(value)[:80]!r}")
    return kept(found, *map(str, found))


def lettered_columns(row: Row) -> list[str]:
    """The texts of options in columns A, B, …, up to the last that is not empty; [] where there are none."""
    texts = [optional_text(row, letter) for letter in itertools.takewhile(row.__contains__, letters(26))]
    return texts[: max((place for place, text in enumerate(texts, 1) if text), default=0)]


def named_letter(answer: str, options: Sequence[str]) -> str:
    """The letter of an option that `answer` gives by its letter: `B`, `(B)`, `B.`; ValueError for none of them."""
    named = re.fullmatch(r"\(?([A-Z])\)?[.:]?", answer)
    if named and named.group(1) in letters(len(options)):
        return named.group(1)
    raise ValueError(f"the answer {answer!r} is none of the options {list(options)}")


def letter_of(answer: str, options: Sequence[str]) -> str:
    """The letter of the option whose text is `answer`, else of the one that it gives by letter; ValueError for none."""
    if answer in options:
        return letters(len(options))[list(options).index(answer)]
    return named_letter(answer, options)


def place_images(question: str, markers: str, count: int) -> str:
    """`question` with what matches the pattern `markers` as `<image>`, where it stands as often as there are images.

    Otherwise the markers are taken out and the images will come first: a text that names an image twice, or a marker
    left over by a translator, must not decide where images go.
    """
    found = len(re.findall(markers, question))
    return re.sub(markers, IMAGE_PLACEHOLDER if found == count else "", question).strip()
