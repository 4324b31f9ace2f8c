"""From rows to checked samples: drafts, images, gold, duplicates. Streams; every row ends written or rejected."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avar_rl.runtime.evidence import EvidenceError, evidence_faults
from avar_rl.runtime.images import image_bytes
from data_tools.convert.duplicates import Duplicates
from data_tools.convert.images import MAX_PIXELS, ROTATED, Picture, read_picture
from data_tools.convert.load import SourceRows
from data_tools.convert.sources.source import Draft, Row, SeveralAnswersError, Source, Unreadable
from data_tools.formats.markup import MarkupError, escaped
from data_tools.formats.sample import DataSample

AHEAD = 32  # rows per worker that are read before the first is passed on
_UNIT = r"%|\\%|°|\^\s*\{?\\circ\}?|[A-Za-z]{2,12}|[mgsL]"
_NUMBER = re.compile(rf"[+-]?(\d[\d,]*+(?:\.\d*+)?|\.\d++)(/\d+)?\s*({_UNIT})?")


@dataclass(frozen=True)
class Rejection:
    """The row at `index`, which is left out. The `kind` of rejection is what is counted, `text` says what was there."""

    index: int
    kind: str
    text: str


@dataclass(frozen=True)
class Converted:
    """The row at `index` as a sample (its images as bytes), and the pictures that it was made of."""

    index: int
    sample: DataSample
    pictures: tuple[Picture, ...]


class BadImageError(ValueError):
    """An image that cannot be found, read or used."""


def gold_kind(gold: str, options: Sequence[str]) -> str:
    """The form of a gold answer: choice (of `options`, or a lone capital letter), number (also with a unit), words, or
    expression."""
    if options or re.fullmatch(r"\(?[A-Z]\)?", gold):
        return "choice"
    if _NUMBER.fullmatch(gold):
        return "number"
    return "words" if re.fullmatch(r"[^\W\d_]+(?:[ '’-]+[^\W\d_]+)*", gold) else "expression"


def _encoded(value: Any, folder: Path) -> bytes:
    """The encoded file of an image of a draft; a PIL image, which `datasets` decodes in some nestings, becomes PNG."""
    from PIL import Image

    if not isinstance(value, Image.Image):
        return image_bytes(value, folder)
    png = io.BytesIO()
    value.save(png, "PNG")
    return png.getvalue()


def pictures_of(draft: Draft, folder: Path, max_pixels: int = MAX_PIXELS) -> tuple[Picture, ...]:
    """The images of a draft, those that are paths from `folder`; BadImageError, with its number, for one that cannot be
    used."""
    pictures = []
    for number, value in enumerate(draft.images):
        try:
            pictures.append(read_picture(_encoded(value, folder), max_pixels))
        except ValueError as error:
            raise BadImageError(f"image {number}: {error}") from error
    return tuple(pictures)


def sample_of(draft: Draft, source: str, id_: str, pictures: tuple[Picture, ...]) -> DataSample:
    """The sample with this id that a draft and its pictures make; errors as for `DataSample`."""
    return DataSample(
        id=id_,
        source=source,
        question=draft.question,
        gold=draft.gold,
        gold_kind=gold_kind(draft.gold, draft.options),
        images=tuple(picture.data for picture in pictures),
        options=tuple(draft.options),
        response=draft.response,
        extra=draft.extra,
        other_golds=tuple(draft.other_golds),
        evidence=draft.evidence,
    )


def check_evidence(draft: Draft, pictures: tuple[Picture, ...]) -> None:
    """Raises EvidenceError where the boxes of a draft do not fit its pictures."""
    if faults := evidence_faults(draft.evidence, [(picture.width, picture.height) for picture in pictures]):
        raise EvidenceError("; ".join(faults))
    for number, (boxes, picture) in enumerate(zip(draft.evidence, pictures, strict=False)):
        if boxes and ROTATED in picture.changes:
            raise EvidenceError(f"image {number} is {ROTATED}: whether its boxes are of before or after, nothing says")


def escaped_draft(draft: Draft) -> Draft:
    """The draft with the markup in its texts taken apart; `<image>` in question and options is a place of an image."""
    return replace(
        draft,
        question=escaped(draft.question, images=True),
        options=[escaped(option, images=True) for option in draft.options],
        gold=escaped(draft.gold),
        other_golds=[escaped(gold) for gold in draft.other_golds],
        response=None if draft.response is None else escaped(draft.response),
    )


@dataclass(frozen=True)
class Converter:
    """Converts the rows of one split.

    `split` becomes a part of the ids. `check_gold` raises ValueError for a gold that cannot be graded. Images over
    `max_pixels` are rejected; `workers` threads read them. A row with chat markup in a text is rejected, or with
    `escape_markup` kept with that markup taken apart.
    """

    source: Source
    split: str
    check_gold: Callable[[str], None]
    max_pixels: int = MAX_PIXELS
    workers: int = 2
    escape_markup: bool = False

    def convert(self, rows: SourceRows, duplicates: Duplicates) -> Iterator[Converted | Rejection]:
        """One outcome per row, in order. Images are read in threads: decoding releases the interpreter's lock."""
        numbered = enumerate(rows.rows)
        with ThreadPoolExecutor(self.workers) as pool:
            while chunk := list(itertools.islice(numbered, AHEAD * self.workers)):
                for made in pool.map(lambda pair: self._read(pair[0], pair[1], rows.folder), chunk):
                    yield self._judge(made, duplicates) if isinstance(made, Converted) else made

    def _read(self, index: int, row: Row | Unreadable, folder: Path) -> Converted | Rejection:
        if isinstance(row, Unreadable):
            return Rejection(index, "row", row.text)
        try:
            draft = self.source.for_training(self.source.draft(row))
            if self.escape_markup:
                draft = escaped_draft(draft)
            pictures = pictures_of(draft, folder, self.max_pixels)
            check_evidence(draft, pictures)
            sample = sample_of(draft, self.source.name, f"{self.source.name}-{self.split}-{index:06d}", pictures)
        except BadImageError as error:
            return Rejection(index, "image", str(error))
        except MarkupError as error:
            return Rejection(index, "markup", str(error))
        except EvidenceError as error:
            return Rejection(index, "evidence", str(error))
        except SeveralAnswersError as error:
            return Rejection(index, "several answers", str(error))
        except ValueError as error:
            return Rejection(index, "row", str(error))
        except (TypeError, AttributeError, LookupError) as error:  # a column of another type than documented
            return Rejection(index, "row", f"{type(error).__name__}: {error}")
        return Converted(index, sample, pictures)

    def _judge(self, made: Converted, duplicates: Duplicates) -> Converted | Rejection:
        try:
            for gold in made.sample.golds:
                self.check_gold(gold)
        except ValueError as error:
            return Rejection(made.index, "gold", str(error))
        reason = duplicates.reason(
            made.sample.text, made.sample.gold, [picture.fingerprint for picture in made.pictures]
        )
        return made if reason is None else Rejection(made.index, reason, made.sample.question[:120])
