"""verl's two parquet row formats, and the one bundle (`Example`) from which both are made.

RL row:   data_source, prompt [{role, content}], images [{bytes}], ability, reward_model {style, ground_truth},
          extra_info {index, split, id, kind, answer_type, question}
chat row: messages [{role, content}], images [{bytes}], id
Each image of a row stands as one `<image>` in the user's text; a row without images has `images = []`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE_PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class Example:
    """One question with its gold answer. `images` are encoded files (PNG, JPEG); `response` is needed for chat rows."""

    id: str
    question: str
    answer: str
    images: tuple[bytes, ...] = ()
    response: str | None = None
    kind: str = ""
    answer_type: str = ""

    @property
    def prompt(self) -> str:
        """The user's text: images first, unless the question already says where they go."""
        if IMAGE_PLACEHOLDER in self.question:
            return self.question
        return IMAGE_PLACEHOLDER * len(self.images) + self.question


def rl_row(example: Example, *, index: int, split: str, data_source: str, ability: str = "vqa") -> dict[str, Any]:
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": example.prompt}],
        "images": [{"bytes": image} for image in example.images],
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": example.answer},
        "extra_info": {
            "index": index,
            "split": split,
            "id": example.id,
            "kind": example.kind,
            "answer_type": example.answer_type,
            "question": example.question,
        },
    }


def chat_row(example: Example) -> dict[str, Any]:
    if not example.response:
        raise ValueError(f"row {example.id}: a chat row needs a response, this example has none")
    messages = [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.response}]
    return {"messages": messages, "images": [{"bytes": image} for image in example.images], "id": example.id}


def _schema(kind: str):
    import pyarrow as pa

    text = pa.string()
    turns = pa.list_(pa.struct([("role", text), ("content", text)]))
    images = pa.list_(pa.struct([("bytes", pa.binary())]))
    if kind == "chat":
        return pa.schema([("messages", turns), ("images", images), ("id", text)])
    extra = [("index", pa.int64())] + [(name, text) for name in ("split", "id", "kind", "answer_type", "question")]
    return pa.schema(
        [
            ("data_source", text),
            ("prompt", turns),
            ("images", images),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct(extra)),
        ]
    )


def write_rows(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Write RL or chat rows as parquet. Atomic: an interrupted write leaves no half file under `path`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not rows:
        raise ValueError(f"{path}: no rows to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The explicit schema keeps `images` typed where every row of a file is text-only.
    table = pa.Table.from_pylist(list(rows), schema=_schema("chat" if "messages" in rows[0] else "rl"))
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class ChatRowWriter:
    """Writes chat rows as they come, so that memory does not grow with the file. The bytes depend on the rows alone.

    Atomic: `path` exists only after a `with` block without an error. Without rows the file holds the bare schema.
    """

    ROWS = 256  # of a row group

    def __init__(self, path: str | Path):
        self.path, self.rows = Path(path), 0
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._batch: list[dict[str, Any]] = []

    def __enter__(self) -> ChatRowWriter:
        import pyarrow.parquet as pq

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._partial, _schema("chat"))
        return self

    def add(self, example: Example) -> None:
        self._batch.append(chat_row(example))
        self.rows += 1
        if len(self._batch) == self.ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._batch:
            self._writer.write_table(pa.Table.from_pylist(self._batch, schema=_schema("chat")))
            self._batch = []

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                os.replace(self._partial, self.path)
        finally:
            self._partial.unlink(missing_ok=True)


def read_rows(path: str | Path, columns: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Rows of a parquet file as dictionaries.

    Raises:
        ValueError: the file is missing, is not parquet, or holds no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such data file")
    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a readable parquet file ({error})") from error
    if table.num_rows == 0:
        raise ValueError(f"{path}: the data file holds no rows")
    return table.to_pylist()
