"""The typed sample that converters write and synthesis reads, and its parquet file.

Columns: id, source, question, options [str], gold, gold_kind, images [{bytes, path}], response, extra (JSON object),
and other_golds [str] and evidence [[[x0, y0, x1, y1]]], which a file may lack. An image has either `bytes` (an encoded
file) or `path` (relative to the folder of the parquet file). The file is a valid `datasets` file: `images` has the
storage layout of a list of `datasets.Image`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.evidence import Evidence, EvidenceError, count_fault, read_evidence
from avar_rl.runtime.images import image_bytes
from data_tools.formats.markup import MarkupError, markup_fault
from data_tools.formats.rows import (
    IMAGE_PLACEHOLDER,
    BatchWriter,
    evidence_lists,
    evidence_type,
    has_columns,
    parquet_columns,
    parquet_rows,
    with_image_places,
)

if TYPE_CHECKING:
    import pyarrow as pa

GOLD_KINDS = ("choice", "number", "expression", "words")
COLUMNS = ("id", "source", "question", "options", "gold", "gold_kind", "images", "response", "extra")
OPTIONAL_COLUMNS = ("other_golds", "evidence")


@dataclass(frozen=True)
class DataSample:
    """One question with its gold answer.

    `source` names the data set. `question` is the text without the options; `<image>` in it says where an image goes.
    With `options`, `gold` is the letter of the right one (A for the first). `gold_kind` is the form of the gold, one of
    GOLD_KINDS. `images` are encoded files, or paths relative to the file of samples.
    `response` is a worked response, where the source has one. `extra` holds what else the source says, as JSON values.
    `other_golds` are answers that are right, too, without options only. `evidence` are boxes in which the answer is to
    be seen, for each image (`avar_rl.runtime.evidence`); () without any.

    Raises:
        ValueError: an empty field, a gold that names no option or stands beside options and other golds, an unknown
            gold kind, or not one `<image>` per image.
        MarkupError: a text holds chat markup (`data_tools.formats.markup`).
        EvidenceError: there are boxes, but not one list of them for each image.
    """

    id: str
    source: str
    question: str
    gold: str
    gold_kind: str
    images: tuple[bytes | str, ...] = ()
    options: tuple[str, ...] = ()
    response: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    other_golds: tuple[str, ...] = ()
    evidence: Evidence = ()

    def __post_init__(self) -> None:
        for name in ("id", "source", "question", "gold"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"`{name}` is empty")
        if not all(isinstance(text, str) for text in (*self.options, *self.other_golds, self.response or "")):
            raise ValueError("an option, another gold or the response is no text")
        if self.gold_kind not in GOLD_KINDS:
            raise ValueError(f"unknown gold kind {self.gold_kind!r}; known are {', '.join(GOLD_KINDS)}")
        if self.options and self.gold not in letters(len(self.options)):
            raise ValueError(f"gold {self.gold!r} names none of the {len(self.options)} options")
        if self.options and self.other_golds:
            raise ValueError(f"other golds {list(self.other_golds)} stand beside options; one letter is the answer")
        said = [("question or options", self.text, True), *(("gold", gold, False) for gold in self.golds)]
        for what, text, images in [*said, ("response", self.response or "", False)]:
            if fault := markup_fault(f"the {what}", text, images=images):
                raise MarkupError(fault)
        places = self.prompt.count(IMAGE_PLACEHOLDER)
        if places != len(self.images):
            raise ValueError(f"`{IMAGE_PLACEHOLDER}` stands {places} times in the text of {len(self.images)} images")
        if fault := count_fault(self.evidence, len(self.images)):
            raise EvidenceError(fault)

    @property
    def golds(self) -> tuple[str, ...]:
        """All right answers, `gold` first."""
        return self.gold, *self.other_golds

    @property
    def text(self) -> str:
        """The question and its lettered options."""
        lines = [f"({letter}) {text}" for letter, text in zip(letters(len(self.options)), self.options, strict=True)]
        return "\n".join([self.question, *lines])

    @property
    def prompt(self) -> str:
        """The user's text with an `<image>` for each image: these come first, unless the question places them."""
        return with_image_places(self.text, len(self.images))

    def read_images(self, folder: str | Path) -> tuple[bytes, ...]:
        """The encoded images; those that are paths are read from `folder`.

        Raises:
            ValueError: an image file does not exist.
        """
        return tuple(image_bytes(image, folder) for image in self.images)


def known_options(sample: DataSample) -> tuple[str, ...]:
    """The texts of a question's options, A first, also of those that stand in its text or its image already.

    The latter are in `extra["options"]` and not in `options`, so that no prompt writes them a second time.
    """
    return sample.options or tuple(sample.extra.get("options") or ())


def letters(count: int) -> str:
    """The letters of `count` options.

    Raises:
        ValueError: more options than letters.
    """
    if count > 26:
        raise ValueError(f"{count} options, more than there are letters")
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]


def _schema() -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    kinds = {
        "options": pa.list_(text),
        "other_golds": pa.list_(text),
        "images": pa.list_(pa.struct([("bytes", pa.binary()), ("path", text)])),
        "evidence": evidence_type(),
    }
    return pa.schema([(name, kinds.get(name, text)) for name in (*COLUMNS, *OPTIONAL_COLUMNS)])


def _row(sample: DataSample) -> dict[str, Any]:
    row = {name: getattr(sample, name) for name in COLUMNS}
    kinds = ("path" if isinstance(image, str) else "bytes" for image in sample.images)
    row["images"] = [
        {"bytes": None, "path": None} | {kind: image} for kind, image in zip(kinds, sample.images, strict=True)
    ]
    row |= {"options": list(sample.options), "other_golds": list(sample.other_golds)}
    row["evidence"] = evidence_lists(sample.evidence)
    row["extra"] = json.dumps(dict(sample.extra), ensure_ascii=False, sort_keys=True)
    return row


def _places(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An image without a name for each that the text of a row places."""
    count = "".join((row["question"], *(row["options"] or ()))).count(IMAGE_PLACEHOLDER)
    return [{"bytes": None, "path": ""}] * count


def _sample(row: Mapping[str, Any]) -> DataSample:
    images = tuple(image["path"] if image["bytes"] is None else image["bytes"] for image in row["images"] or ())
    extra = json.loads(row["extra"] or "{}")
    if not isinstance(extra, dict):
        raise ValueError(f"`extra` is a {type(extra).__name__}; it must be a JSON object")
    lists = {name: tuple(row.get(name) or ()) for name in ("options", "other_golds")}
    evidence = read_evidence(row.get("evidence"), "evidence")
    return DataSample(**{**row, **lists, "images": images, "extra": extra, "evidence": evidence})


class SampleWriter(BatchWriter[DataSample]):
    """Writes samples to a parquet file in batches; see `BatchWriter`."""

    def __init__(self, path: str | Path):
        super().__init__(path, _schema(), _row)


def is_sample_file(path: str | Path) -> bool:
    """Whether `path` is a parquet file with the columns of samples."""
    return has_columns(path, COLUMNS)


def read_samples(
    path: str | Path, row_groups: Sequence[int] | None = None, *, with_images: bool = True
) -> Iterator[DataSample]:
    """Samples of a file (or of some of its row groups), in order, a small batch in memory at a time.

    Args:
        with_images: False to read the texts alone, which is much faster: then a sample has an empty name for each image
            that its text places, and no evidence.

    Raises:
        ValueError: the file is missing, is not parquet, is not a file of samples, or holds a faulty one.
    """
    names = parquet_columns(path)
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise ValueError(
            f"{path}: no file of samples: missing columns {', '.join(missing)}; it has {', '.join(names)}."
            " Make one with `python -m data_tools.convert`"
        )
    unwanted = () if with_images else ("images", "evidence")
    found = [name for name in (*COLUMNS, *OPTIONAL_COLUMNS) if name in names and name not in unwanted]
    for row in parquet_rows(path, found, row_groups):
        try:
            sample = _sample(row if with_images else row | {"images": _places(row)})
        except ValueError as error:
            raise ValueError(f"{path}, sample {row['id']}: {error}") from error
        except (TypeError, LookupError, AttributeError, RecursionError) as error:  # a column of another type
            raise ValueError(f"{path}, sample {row['id']}: {type(error).__name__}: {error}") from error
        yield sample
