"""verl's two parquet row formats.

RL row:   data_source, prompt [{role, content}], images [{bytes}], ability, reward_model {style, ground_truth},
          extra_info {index, split, id, kind, gold_kind, question, options [str], other_golds [str],
          evidence [[[x0, y0, x1, y1]]]}, and, where `avar difficulty` has measured them, pass_rate and pass_samples
chat row: messages [{role, content}], images [{bytes}], id
Each image of a row stands as one `<image>` in the user's text; a row without images has `images = []`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from avar_rl.runtime.evidence import Evidence
from avar_rl.runtime.files import parquet_faults, replacing

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_PLACEHOLDER = "<image>"
RL_COLUMNS = ("data_source", "prompt", "images", "reward_model")
CHAT_COLUMNS = ("messages", "images")
BATCH_BYTES = 8 << 20  # of images in memory before a row group is written
BATCH_ROWS = 1000

RowFormat = Literal["rl", "chat"]
T = TypeVar("T")


def with_image_places(question: str, images: int) -> str:
    """The user's text for a question about `images` images: one `<image>` for each before the question.

    A question that says itself where its images go (it holds `<image>`) is returned as it is.
    """
    return question if IMAGE_PLACEHOLDER in question else IMAGE_PLACEHOLDER * images + question


def rl_row(
    *,
    id: str,
    source: str,
    question: str,
    gold: str,
    images: Sequence[bytes] = (),
    kind: str = "",
    gold_kind: str = "",
    options: Sequence[str] = (),
    other_golds: Sequence[str] = (),
    evidence: Evidence = (),
    index: int,
    split: str,
    ability: str = "vqa",
) -> dict[str, Any]:
    """The RL row of one question with its gold answer.

    Args:
        source: the data set, verl's `data_source`.
        question: the question, which already names its options.
        images: encoded files (PNG, JPEG, WebP).
        kind: the family of the question, such as count_form; empty where the data set has no families.
        gold_kind: the form of the gold answer, such as number or choice.
        options: the texts of a multiple choice, A first; none for a free answer.
        other_golds: other answers that are right, too.
        evidence: for each image, the boxes in which the answer is to be seen; see `avar_rl.runtime.evidence`.
        index: position of the row in its split.
    """
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": with_image_places(question, len(images))}],
        "images": [{"bytes": image} for image in images],
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": gold},
        "extra_info": {
            "index": index,
            "split": split,
            "id": id,
            "kind": kind,
            "gold_kind": gold_kind,
            "question": question,
            "options": list(options),
            "other_golds": list(other_golds),
            "evidence": evidence_lists(evidence),
        },
    }


def evidence_lists(evidence: Evidence) -> list[list[list[float]]]:
    """Evidence boxes as the nested lists that files hold."""
    return [[list(box) for box in boxes] for boxes in evidence]


def chat_row(*, id: str, question: str, response: str | None, images: Sequence[bytes] = ()) -> dict[str, Any]:
    """The chat row of a question and the response to learn; `images` are encoded files.

    Raises:
        ValueError: there is no response.
    """
    if not response:
        raise ValueError(f"row {id}: a chat row needs a response, and there is none")
    prompt = {"role": "user", "content": with_image_places(question, len(images))}
    messages = [prompt, {"role": "assistant", "content": response}]
    return {"messages": messages, "images": [{"bytes": image} for image in images], "id": id}


def row_format(columns: Collection[str], path: str | Path) -> RowFormat:
    """Which of the two formats rows with these columns have; `path` is their file, for the message.

    Raises:
        ValueError: neither; names the columns that are missing.
    """
    found: RowFormat = "chat" if "messages" in columns else "rl"
    missing = [column for column in (CHAT_COLUMNS if found == "chat" else RL_COLUMNS) if column not in columns]
    if missing:
        raise ValueError(
            f"{path}: missing columns {', '.join(missing)}; it has {', '.join(columns)}. RL rows need"
            f" {', '.join(RL_COLUMNS)}; chat rows need {', '.join(CHAT_COLUMNS)} (text-only rows: an empty `images`)"
        )
    return found


def evidence_type() -> pa.DataType:
    """The parquet type of evidence boxes: for each image, a list of boxes of four numbers."""
    import pyarrow as pa

    return pa.list_(pa.list_(pa.list_(pa.float64())))


def _schema(form: RowFormat) -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    turns = pa.list_(pa.struct([("role", text), ("content", text)]))
    images = pa.list_(pa.struct([("bytes", pa.binary())]))
    if form == "chat":
        return pa.schema([("messages", turns), ("images", images), ("id", text)])
    extra: list[tuple[str, pa.DataType]] = [("index", pa.int64())]
    extra += [(name, text) for name in ("split", "id", "kind", "gold_kind", "question")]
    extra += [("options", pa.list_(text)), ("other_golds", pa.list_(text)), ("evidence", evidence_type())]
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


def joined_schema(paths: Sequence[str | Path], also: pa.Schema) -> pa.Schema:
    """A schema that holds the rows of all these parquet files, with the columns and keys of `also` beside their own.

    Raises:
        ValueError: a column or key has another type in one file than in another (names the file).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = pa.schema([])
    for path in paths:
        with parquet_faults(path):
            schema = pq.read_schema(path).remove_metadata()  # pandas' and datasets' say what columns there were
        try:
            found = pa.unify_schemas([found, schema], promote_options="permissive")
            pa.unify_schemas([found, also], promote_options="permissive")
        except pa.ArrowException as error:
            raise ValueError(f"{path}: a column is of another type than elsewhere ({error})") from error
    return pa.unify_schemas([found, also], promote_options="permissive")


class BatchWriter(Generic[T]):
    """Writes a parquet file with an `images` column, at most `BATCH_ROWS` rows or `BATCH_BYTES` of images in memory.

    `as_row` makes a dictionary of what `add` is given. `rows` counts what was added. The file is there whole, after a
    `with` block without an error, or not at all.
    """

    def __init__(self, path: str | Path, schema: pa.Schema, as_row: Callable[[T], dict[str, Any]]):
        self.path, self.rows = Path(path), 0
        self._schema, self._as_row = schema, as_row
        self._batch: list[dict[str, Any]] = []
        self._bytes = 0

    def __enter__(self) -> BatchWriter[T]:
        import pyarrow.parquet as pq

        # Encoded images neither compress further nor repeat: compressing or indexing them would only cost time.
        images = {"images.list.element.bytes": "none"}
        compression = {path: images.get(path, "snappy") for path in _leaves(self._schema)}
        options: dict[str, Any] = {
            "compression": compression,
            "use_dictionary": [path for path in compression if path not in images],
        }
        with ExitStack() as stack:  # at the end, in reverse: the last batch, the end of the file, its name
            partial = stack.enter_context(replacing(self.path))
            self._writer = stack.enter_context(pq.ParquetWriter(partial, self._schema, **options))
            stack.push(self._flush_unless_failed)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._open.__exit__(kind, error, traceback)

    def add(self, value: T) -> None:
        """Adds one row to the file."""
        row = self._as_row(value)
        self._batch.append(row)
        self._bytes += sum(len((image or {}).get("bytes") or b"") for image in row["images"] or ())
        self.rows += 1
        if self._bytes >= BATCH_BYTES or len(self._batch) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._batch:
            self._writer.write_table(pa.Table.from_pylist(self._batch, schema=self._schema))
        self._batch, self._bytes = [], 0

    def _flush_unless_failed(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            self._flush()


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet's names of the columns that hold values, nested ones as `images.list.element.bytes`."""
    import pyarrow as pa

    def below(name: str, kind: Any) -> list[str]:
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return below(f"{name}.list.element", kind.value_type)
        if pa.types.is_struct(kind):
            return [leaf for field in kind for leaf in below(f"{name}.{field.name}", field.type)]
        return [name]

    return [leaf for field in schema for leaf in below(field.name, field.type)]


def row_writer(form: RowFormat, path: str | Path, like: Sequence[str | Path] = ()) -> BatchWriter[dict[str, Any]]:
    """A writer of RL or chat rows. Its explicit schema keeps `images` typed where all rows are text-only.

    like: parquet files from which rows come; their own columns and keys are kept, too.
    """
    return BatchWriter(path, joined_schema(like, _schema(form)), dict)


def write_rows(rows: Sequence[dict[str, Any]], path: str | Path, like: Sequence[str | Path] = ()) -> None:
    """Writes RL or chat rows as a parquet file, whole or not at all; `like` as for `row_writer`.

    Raises:
        ValueError: there are no rows, or they lack columns of both formats.
    """
    if not rows:
        raise ValueError(f"{path}: no rows to write")
    with row_writer(row_format(rows[0], path), path, like) as writer:
        for row in rows:
            writer.add(row)


def parquet_columns(path: str | Path) -> list[str]:
    """The names of the columns of a parquet file.

    Raises:
        ValueError: the file is missing or is not parquet.
    """
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise ValueError(f"{path}: no such data file")
    with parquet_faults(path):
        return pq.read_schema(path).names


def has_columns(path: str | Path, columns: Iterable[str]) -> bool:
    """Whether `path` is a parquet file, by name and content, that has all of `columns`."""
    if not (Path(path).suffix == ".parquet" and Path(path).is_file()):
        return False
    try:
        return set(columns) <= set(parquet_columns(path))
    except ValueError:
        return False  # no parquet, whatever its name says: the reader that it is meant for will say so


def parquet_batches(
    path: str | Path, columns: Sequence[str] | None = None, row_groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """A parquet file (or some of its row groups) in batches of 64 rows, with a row group at most in memory.

    (Arrow's other readers, `datasets`' among them, fetch ahead of a slow consumer until the whole file is in memory.)
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(batch_size=64, columns=columns, row_groups=row_groups)


def batch_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch as dictionaries. A float of 32 or 16 bits becomes the number that it was written as, 0.1 and
    not 0.10000000149011612."""
    import numpy as np
    import pyarrow as pa

    rows = batch.to_pylist()
    for field in batch.schema:
        if pa.types.is_float32(field.type) or pa.types.is_float16(field.type):
            narrow = np.float32 if pa.types.is_float32(field.type) else np.float16
            for row in rows:
                row[field.name] = None if row[field.name] is None else float(str(narrow(row[field.name])))
    return rows


def parquet_rows(
    path: str | Path, columns: Sequence[str] | None = None, row_groups: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of a parquet file (or of some of its row groups) one by one, with a row group at most in memory.

    Raises:
        ValueError: the file is not parquet, is damaged, or holds a value that Python lacks.
    """
    batches = parquet_batches(path, columns, row_groups)
    while True:
        with parquet_faults(path):
            batch = next(batches, None)
            rows = [] if batch is None else batch_rows(batch)
        if batch is None:
            return
        yield from rows
