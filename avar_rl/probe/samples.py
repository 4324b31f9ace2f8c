"""What the probe measures on: conversations with images, from any of the row formats a parquet file may have."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avar_rl.runtime.files import read_parquet
from data_tools.formats.rows import IMAGE_PLACEHOLDER
from data_tools.validate import structured_turns, token_length

TEXT_COLUMNS = ("question", "problem", "query", "prompt", "text")
IMAGE_COLUMNS = ("images", "image")


@dataclass(frozen=True)
class Sample:
    """A conversation, its encoded images in the order of their `<image>` marks; `asks`: the model's turn comes next."""

    id: str
    turns: tuple[dict[str, str], ...]
    images: tuple[bytes, ...]
    asks: bool = True

    def text(self, processor) -> str:
        """As the chat template writes it; one pad token per image."""
        return processor.apply_chat_template(
            structured_turns(list(self.turns)), add_generation_prompt=self.asks, tokenize=False
        )

    def pictures(self) -> list:
        """The images, decoded to RGB."""
        from PIL import Image

        return [Image.open(io.BytesIO(data)).convert("RGB") for data in self.images]

    def tokens(self, processor) -> int:
        """Length as the processor counts it, image tokens included. ValueError: an image that cannot be read."""
        from PIL import Image, UnidentifiedImageError

        try:
            sizes = [Image.open(io.BytesIO(data)).size[::-1] for data in self.images]
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"sample {self.id}: an image cannot be read ({error})") from error
        return token_length(processor, list(self.turns), sizes, add_generation_prompt=self.asks)


def load_samples(path: Path, rows: str, limit: int | None = None) -> list[Sample]:
    """The first `limit` rows of a parquet file: RL rows, chat rows, or a column of text and one of images.

    With rows "user", the response of a chat row is left out: no user text ever sees it.

    Raises:
        ValueError: no such file, no known columns, an unreadable row, or rows "response" where the file has none.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1")
    table = read_parquet(path)[:limit]
    first = table[0]
    if "messages" in first:
        samples = [_chat_sample(index, row, rows) for index, row in enumerate(table)]
    elif rows == "response":
        raise ValueError(f"{path} holds no responses: --rows response needs chat rows (a `messages` column)")
    elif isinstance(first.get("prompt"), list):
        samples = [
            Sample(_id(index, row), tuple(row["prompt"]), _images(row, index, path)) for index, row in enumerate(table)
        ]
    else:
        samples = [_plain_sample(index, row, path) for index, row in enumerate(table)]
    for sample in samples:
        marks = sum(turn["content"].count(IMAGE_PLACEHOLDER) for turn in sample.turns)
        if marks != len(sample.images):
            raise ValueError(f"{path}, row {sample.id}: {marks} `<image>` marks for {len(sample.images)} images")
    return samples


def _chat_sample(index: int, row: Mapping[str, Any], rows: str) -> Sample:
    turns = list(row["messages"])
    if rows == "response":
        return Sample(_id(index, row), tuple(turns), _images(row, index, Path()), asks=False)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    return Sample(_id(index, row), tuple(turns), _images(row, index, Path()))


def _plain_sample(index: int, row: Mapping[str, Any], path: Path) -> Sample:
    text = next((row[name] for name in TEXT_COLUMNS if isinstance(row.get(name), str)), None)
    if text is None:
        raise ValueError(
            f"{path}, row {index}: no text. The probe reads RL rows (`prompt`), chat rows (`messages`), or a column "
            f"{', '.join(TEXT_COLUMNS)} beside {' or '.join(IMAGE_COLUMNS)}; the file has {', '.join(row)}"
        )
    images = _images(row, index, path)
    if IMAGE_PLACEHOLDER not in text:  # images first, unless the text says where they go
        text = IMAGE_PLACEHOLDER * len(images) + text
    return Sample(_id(index, row), ({"role": "user", "content": text},), images)


def _images(row: Mapping[str, Any], index: int, path: Path) -> tuple[bytes, ...]:
    found = next((row[name] for name in IMAGE_COLUMNS if row.get(name) is not None), [])
    values: Sequence[Any] = found if isinstance(found, list) else [found]
    return tuple(_image_bytes(value, f"{path}, row {index}", path.parent) for value in values)


def _image_bytes(value: Any, where: str, folder: Path) -> bytes:
    """Encoded bytes of bytes, of a path (relative to `folder`), or of {bytes, path}."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if isinstance(value, str) and (folder / value).is_file():
        return (folder / value).read_bytes()
    raise ValueError(f"{where}: an image is neither bytes nor a file that exists: {str(value)[:80]!r}")


def _id(index: int, row: Mapping[str, Any]) -> str:
    return str(row.get("id") or (row.get("extra_info") or {}).get("id") or index)
