"""verl's two parquet row formats, and the one bundle (`Example`) from which both are made.

RL row:   data_source, prompt [{role, content}], images [{bytes}], ability, reward_model {style, ground_truth},
          extra_info {index, split, id, kind, answer_type, question, options [str]}
chat row: messages [{role, content}], images [{bytes}], id
Each image of a row stands as one `<image>` in the user's text; a row without images has `images = []`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE_PLACEHOLDER = "<image>"
BATCH_BYTES = 8 << 20  # of images in memory before a row group is written
BATCH_ROWS = 1000


@dataclass(frozen=True)
class Example:
    """One question with its gold answer. `images` are encoded files (PNG, JPEG); `response` is needed for chat rows;
    `options` are the texts of a multiple choice, A first, as `question` already names them."""

    id: str
    question: str
    answer: str
    images: tuple[bytes, ...] = ()
    response: str | None = None
    kind: str = ""
    answer_type: str = ""
    options: tuple[str, ...] = ()

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
            "options": list(example.options),
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
    extra.append(("options", pa.list_(text)))
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


class BatchWriter:
    """Writes dictionaries to a parquet file, at most `BATCH_ROWS` rows or `BATCH_BYTES` of images in memory.

    Atomic: `path` exists only after a `with` block without an error.
    """

    def __init__(self, path: str | Path, schema):
        self.path, self.rows = Path(path), 0
        self._schema = schema
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._batch: list[dict[str, Any]] = []
        self._bytes = 0

    def __enter__(self) -> BatchWriter:
        import pyarrow.parquet as pq

        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Encoded images neither compress further nor repeat: compressing or indexing them would only cost time.
        images = {"images.list.element.bytes": "none"}
        compression = {path: images.get(path, "snappy") for path in _leaves(self._schema)}
        dictionaries = [path for path in compression if path not in images]
        self._writer = pq.ParquetWriter(
            self._partial, self._schema, compression=compression, use_dictionary=dictionaries
        )
        return self

    def add(self, row: dict[str, Any]) -> None:
        self._batch.append(row)
        self._bytes += sum(len(image["bytes"] or b"") for image in row["images"])
        self.rows += 1
        if self._bytes >= BATCH_BYTES or len(self._batch) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._batch:
            self._writer.write_table(pa.Table.from_pylist(self._batch, schema=self._schema))
        self._batch, self._bytes = [], 0

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                os.replace(self._partial, self.path)
        finally:
            self._partial.unlink(missing_ok=True)


def _leaves(schema) -> list[str]:
    """Parquet's names of the columns that hold values, nested ones as `images.list.element.bytes`."""
    import pyarrow as pa

    def below(name: str, kind) -> list[str]:
        if pa.types.is_list(kind):
            return below(f"{name}.list.element", kind.value_type)
        if pa.types.is_struct(kind):
            return [leaf for field in kind for leaf in below(f"{name}.{field.name}", field.type)]
        return [name]

    return [leaf for field in schema for leaf in below(field.name, field.type)]


def write_rows(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Write RL or chat rows as parquet. Atomic: an interrupted write leaves no half file under `path`."""
    if not rows:
        raise ValueError(f"{path}: no rows to write")
    with row_writer("chat" if "messages" in rows[0] else "rl", path) as writer:
        for row in rows:
            writer.add(row)


def row_writer(kind: str, path: str | Path) -> BatchWriter:
    """A writer of "rl" or "chat" rows. Its explicit schema keeps `images` typed where all rows are text-only."""
    return BatchWriter(path, _schema(kind))


def parquet_rows(
    path: str | Path, columns: Sequence[str] | None = None, row_groups: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of a parquet file (or of some of its row groups) one by one, with a row group at most in memory.

    (Arrow's other readers, `datasets`' among them, fetch ahead of a slow consumer until the whole file is in memory.)
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=64, columns=columns, row_groups=row_groups):
            yield from batch.to_pylist()


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
