"""Which questions of benchmarks also stand in training data: their images, the same or nearly, and their texts.

An image is the same where size and every pixel are (of what a model is given, `runtime.images.rgb`), and near where
`data_tools.convert.duplicates` says so. A question's text is there where all its words stand one after another in what
a training row's user says, options and the marks of images aside, letters small and without punctuation; a text of
fewer than 8 words ("Find x.") would be found anywhere and is not looked for.

The benchmark is held in memory, the training file is streamed: a hash of 64 bytes an image and the words of a question.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avar_rl.runtime.images import image_bytes, opened, rgb
from data_tools.convert.duplicates import Images
from data_tools.convert.images import Fingerprint, read_picture
from data_tools.formats.rows import parquet_columns, parquet_rows, row_format
from data_tools.formats.sample import COLUMNS, DataSample
from data_tools.validate import row_id

KINDS = ("image", "near_image", "text")
MIN_WORDS = 8
AHEAD = 64  # rows whose images are decoded side by side
READ = {
    "samples": ("id", "question", "images"),
    "rl": ("prompt", "images", "extra_info"),
    "chat": ("messages", "images", "id"),
}
_MARK = re.compile(r"<image ?\d*>")
_OPTIONS = re.compile(r"\n[ \t]*(?:Options|Choices):")
_WORD = re.compile(r"\w+")
# The official columns that hold a question's own words, where `question` is empty or has a prompt around it.
_PLAIN = ("question_for_eval", "question")


@dataclass(frozen=True)
class TrainingRow:
    """What a training row shows: `where` names file and row, `text` is what the user says, `images` are encoded."""

    where: str
    text: str
    images: tuple[Any, ...]


@dataclass(frozen=True)
class Seen:
    """One image: (width, height), its fingerprint, and a digest of its pixels, None where none was asked for."""

    size: tuple[int, int]
    fingerprint: Fingerprint
    pixels: bytes | None


@dataclass
class Search:
    """The images and texts of benchmarks' questions, and where in training data they were found.

    `found`: kind → question's id → the first training row that has it. `rows`, `unreadable`: training rows read, and
    training images that cannot be.
    """

    found: dict[str, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    rows: int = 0
    unreadable: int = 0
    _images: Images = field(default_factory=Images)
    _owners: list[list[str]] = field(default_factory=list)  # of the images, by their place
    _places: dict[bytes, int] = field(default_factory=dict)  # digest of pixels → place
    _sizes: set[tuple[int, int]] = field(default_factory=set)
    _texts: dict[tuple[str, ...], list[tuple[str, list[str]]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, sample: DataSample) -> None:
        """Adds a question to look for. ValueError: an image of it cannot be read."""
        for image in sample.images:
            if isinstance(image, str):
                raise ValueError(f"question {sample.id}: its image is a path ({image}), not the bytes of a file")
            seen = see(image)
            place = self._places.setdefault(seen.pixels or b"", len(self._owners))
            if place == len(self._owners):
                self._owners.append([])
                self._images.add(seen.fingerprint)
                self._sizes.add(seen.size)
            self._owners[place].append(sample.id)
        if len(found := words(question_text(sample))) >= MIN_WORDS:
            self._texts[tuple(found[:MIN_WORDS])].append((sample.id, found))

    def look(self, row: TrainingRow, images: Iterable[Seen | None]) -> None:
        """Notes what the row has of the questions; `images` are the row's, None where one cannot be read."""
        self.rows += 1
        for seen in images:
            if seen is None:
                self.unreadable += 1
                continue
            same = self._places.get(seen.pixels) if seen.pixels else None
            if same is not None:
                self._note("image", self._owners[same], row)
            for place in self._images.near(seen.fingerprint):
                if place != same:
                    self._note("near_image", self._owners[place], row)
        said = words(row.text)
        for start in range(len(said) - MIN_WORDS + 1):
            for id_, asked in self._texts.get(tuple(said[start : start + MIN_WORDS]), ()):
                if said[start : start + len(asked)] == asked:
                    self._note("text", [id_], row)

    def _note(self, kind: str, ids: Iterable[str], row: TrainingRow) -> None:
        for id_ in ids:
            self.found[kind].setdefault(id_, row.where)

    def looks_at(self, size: tuple[int, int]) -> bool:
        """Whether an image of this size may be, pixel by pixel, one of a question's."""
        return size in self._sizes


def question_text(sample: DataSample) -> str:
    """The words of a question as its benchmark writes them, without options; "" where they stand in the image only."""
    plain = next((sample.extra[key] for key in _PLAIN if isinstance(sample.extra.get(key), str)), sample.question)
    return _OPTIONS.split(plain, maxsplit=1)[0]


def words(text: str) -> list[str]:
    """The words of a text, in small letters, without punctuation and marks of images."""
    return _WORD.findall(_MARK.sub(" ", text).casefold())


def see(data: bytes, wanted=lambda size: True) -> Seen:
    """An encoded image; its pixels are hashed where `wanted` says so of its size. ValueError: it cannot be read."""
    picture = read_picture(data)
    size = picture.width, picture.height
    pixels = hashlib.sha256(f"{size}".encode() + rgb(opened(picture.data)).tobytes()).digest() if wanted(size) else None
    return Seen(size, picture.fingerprint, pixels)


def check_files(files: Sequence[Path]) -> None:
    """Raises ValueError where one is missing, or holds no rows of training."""
    for path in files:
        _read_columns(path)


def _read_columns(path: Path) -> tuple[str, list[str]]:
    """Which rows a file holds, `samples`, `rl` or `chat`, and which of its columns are read."""
    columns = parquet_columns(path)
    form = "samples" if set(COLUMNS) <= set(columns) else row_format(columns, path)
    return form, [name for name in READ[form] if name in columns]


def training_rows(path: Path) -> Iterator[TrainingRow]:
    """The rows of a parquet file of samples, RL rows or chat rows, in order, a small batch in memory at a time.

    Raises:
        ValueError: no such file, no parquet, or none of the three formats.
    """
    form, columns = _read_columns(path)
    for index, row in enumerate(parquet_rows(path, columns)):
        turns = row.get("prompt" if form == "rl" else "messages")
        text = row["question"] if form == "samples" else "\n".join(_user_texts(turns))
        images = [entry for entry in row["images"] or () if entry]
        yield TrainingRow(f"{path.name}, row {row_id(row) or index}", text or "", tuple(images))


def _user_texts(turns: Any) -> list[str]:
    said = turns if isinstance(turns, list) else []
    return [turn["content"] for turn in said if turn.get("role") == "user" and isinstance(turn.get("content"), str)]


def check(search: Search, files: Sequence[Path]) -> None:
    """Looks through training files for the questions of `search`, with a line of progress.

    Raises:
        ValueError: a file that is missing or holds no rows of training.
    """
    import pyarrow.parquet as pq
    from tqdm import tqdm

    check_files(files)
    for path in files:
        rows, total = training_rows(path), pq.read_metadata(path).num_rows

        def read(row: TrainingRow, folder: Path = path.parent) -> list[Seen | None]:
            return [_seen(image, folder, search) for image in row.images]

        with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=total, desc=path.name, disable=None) as bar:
            while chunk := list(itertools.islice(rows, AHEAD)):
                for row, images in zip(chunk, pool.map(read, chunk), strict=True):
                    search.look(row, images)
                bar.update(len(chunk))


def _seen(image: Any, folder: Path, search: Search) -> Seen | None:
    try:
        return see(image_bytes(image, folder), search.looks_at)
    except ValueError:
        return None
