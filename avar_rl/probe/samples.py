"""What the probe measures on: conversations with images, from any of the row formats a parquet file may have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avar_rl.runtime.files import read_parquet
from avar_rl.runtime.images import image_bytes, image_size, open_image, rgb
from data_tools.formats.rows import IMAGE_PLACEHOLDER
from data_tools.validate import check_turns, row_id, structured_turns, token_length

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_COLUMNS = ("question", "problem", "query", "prompt", "text")
IMAGE_COLUMNS = ("images", "image")

Queries = Literal["user", "response"]  # whose attention is measured: of the user's text, or of the response


@dataclass(frozen=True)
class Conversation:
    """Turns of a chat, `{role, content}` each, and the encoded images in the order of their `<image>` marks."""

    id: str
    turns: tuple[dict[str, str], ...]
    images: tuple[bytes, ...]
    asks: bool = True  # the model's turn comes next; False where the conversation ends with it

    def text(self, processor) -> str:
        """The conversation as the processor's chat template writes it; one pad token per image."""
        return processor.apply_chat_template(
            structured_turns(list(self.turns)), add_generation_prompt=self.asks, tokenize=False
        )

    def pictures(self) -> list[Image]:
        """The images, decoded to RGB. ValueError: one is broken."""
        return [rgb(open_image(data, where=self._name), self._name) for data in self.images]

    def tokens(self, processor) -> int:
        """The length in tokens as the processor counts, image tokens included. ValueError: an unreadable image."""
        sizes = [image_size(data, where=self._name) for data in self.images]
        high_wide = [(height, width) for width, height in sizes]
        return token_length(processor, list(self.turns), high_wide, add_generation_prompt=self.asks)

    @property
    def _name(self) -> str:
        return f"sample {self.id}"


def load_samples(path: Path, queries: Queries, limit: int | None = None, tokenizer: Any = None) -> list[Conversation]:
    """The first `limit` rows of a parquet file: RL rows, chat rows, or a column of text and one of images.

    Args:
        queries: whose attention will be measured. With "user" the response of a chat row is left out, as no user text
            ever sees it.
        limit: None for all rows.
        tokenizer: the model's; then markup in a text is also found by the ids of its special tokens.

    Raises:
        ValueError: no such file, no known columns, an unreadable row, chat markup in a text (which would be measured as
            tokens of an image or of the system turn), or "response" where the file has none.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1")
    table = read_parquet(path)[:limit]
    first = table[0]
    if "messages" in first:
        samples = [_chat_sample(index, row, queries, path) for index, row in enumerate(table)]
    elif queries == "response":
        raise ValueError(f"{path} holds no responses: only chat rows (a `messages` column) have them")
    elif isinstance(first.get("prompt"), list):
        samples = [
            Conversation(_id(index, row), tuple(_turns(row, "prompt", index, path)), _images(row, index, path))
            for index, row in enumerate(table)
        ]
    else:
        samples = [_plain_sample(index, row, path) for index, row in enumerate(table)]
    for sample in samples:
        if faults := check_turns(list(sample.turns), "the conversation", tokenizer):
            raise ValueError(f"{path}, row {sample.id}: {'; '.join(faults)}")
        marks = sum(turn["content"].count(IMAGE_PLACEHOLDER) for turn in sample.turns)
        if marks != len(sample.images):
            raise ValueError(f"{path}, row {sample.id}: {marks} `<image>` marks for {len(sample.images)} images")
    return samples


def _turns(row: dict[str, Any], column: str, index: int, path: Path) -> list[dict[str, str]]:
    turns = row[column]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{path}, row {index}: `{column}` is no list of {{role, content}}")
    return list(turns)


def _chat_sample(index: int, row: dict[str, Any], queries: Queries, path: Path) -> Conversation:
    turns = _turns(row, "messages", index, path)
    if queries == "response":
        return Conversation(_id(index, row), tuple(turns), _images(row, index, Path()), asks=False)
    while turns and turns[-1].get("role") == "assistant":
        turns.pop()
    return Conversation(_id(index, row), tuple(turns), _images(row, index, Path()))


def _plain_sample(index: int, row: dict[str, Any], path: Path) -> Conversation:
    text = next((row[name] for name in TEXT_COLUMNS if isinstance(row.get(name), str)), None)
    if text is None:
        raise ValueError(
            f"{path}, row {index}: no text. The probe reads RL rows (`prompt`), chat rows (`messages`), or a column "
            f"{', '.join(TEXT_COLUMNS)} beside {' or '.join(IMAGE_COLUMNS)}; the file has {', '.join(row)}"
        )
    images = _images(row, index, path)
    if IMAGE_PLACEHOLDER not in text:  # images first, unless the text says where they go
        text = IMAGE_PLACEHOLDER * len(images) + text
    return Conversation(_id(index, row), ({"role": "user", "content": text},), images)


def _images(row: dict[str, Any], index: int, path: Path) -> tuple[bytes, ...]:
    found = next((row[name] for name in IMAGE_COLUMNS if row.get(name) is not None), [])
    values = found if isinstance(found, list) else [found]
    return tuple(image_bytes(value, path.parent, f"{path}, row {index}") for value in values)


def _id(index: int, row: dict[str, Any]) -> str:
    return row_id(row) or str(index)
