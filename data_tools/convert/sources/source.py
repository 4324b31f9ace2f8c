"""What a source is: where its rows come from, which columns they must have, and how one row becomes a draft."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.formats.rows import IMAGE_PLACEHOLDER
from data_tools.formats.sample import letters

Row = Mapping[str, Any]
IN_THE_IMAGE = "Answer the question in the image."  # for rows whose question is only drawn


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


def no_own_reader(path: Path) -> None:
    """The reader of a source whose JSON files `datasets` can read."""


@dataclass(frozen=True)
class Source:
    """A data set that can be converted.

    `columns`: what every row must have. `draft` makes a draft of a row and raises ValueError for one that cannot be
    used. `hub`, `config`: its name on the hub and there the name of its configuration. `splits`: the hub's names, what
    is held out first. `read` gives the rows of a local JSON file that `datasets` cannot read, None for other files.
    """

    name: str
    columns: tuple[str, ...]
    draft: Callable[[Row], Draft]
    hub: str | None = None
    config: str | None = None
    splits: tuple[str, ...] = ("train",)
    read: Callable[[Path], Iterable[Row] | None] = no_own_reader


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
    """The stripped text of a column of the row; ValueError where it is empty."""
    value = row[column]
    text = "" if value is None else str(value).strip()
    if not text:
        raise ValueError(f"column {column} is empty")
    return text


def listed(value: Any) -> list[Any]:
    """`value` as a list: None gives an empty one, a list stays as it is, anything else becomes the only entry."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def kept(row: Row, *columns: str) -> dict[str, Any]:
    """Those of `columns` that the row has and that are not empty, for a draft's `extra`."""
    return {column: row[column] for column in columns if row.get(column) not in (None, "", [])}


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
