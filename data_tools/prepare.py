"""Turn a data set of image questions into training files: `python -m data_tools.prepare SOURCE OUT`.

SOURCE is a parquet, json or jsonl file, or a name that `datasets` loads from the hub. Writes
OUT/{rl_train,rl_val,test}.parquet
and, with --response-column, OUT/{sft_train,sft_val}.parquet from the same training and validation questions. Rows with
equal question and images are kept once, so no question is in two splits. Check the result with `data_tools.validate`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.rows import Example, chat_row, rl_row, write_rows

FILE_LOADERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json"}


@dataclass(frozen=True)
class Columns:
    """Which column of the source holds what; `response` and `images` may be absent."""

    question: str
    answer: str
    images: str | None = None
    response: str | None = None

    def named(self) -> list[str]:
        return [name for name in (self.question, self.answer, self.images, self.response) if name is not None]


def load_source(source: str, split: str = "train"):
    """The source as a `datasets.Dataset` with images left encoded.

    Raises:
        ValueError: no such file, an unknown kind of file, an unknown hub name, or no rows.
    """
    import datasets

    path = Path(source)
    if path.suffix in FILE_LOADERS and not path.is_file():
        raise ValueError(f"{source}: no such data file")
    if path.is_file() and path.suffix not in FILE_LOADERS:
        raise ValueError(f"{source}: unknown kind of file; known are {', '.join(FILE_LOADERS)}")
    try:
        if path.is_file():
            data = datasets.load_dataset(FILE_LOADERS[path.suffix], data_files=str(path), split="train")
        else:
            data = datasets.load_dataset(source, split=split)
    except (FileNotFoundError, ConnectionError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise ValueError(f"{source}: `datasets` cannot load it ({type(error).__name__}: {error})") from error
    if len(data) == 0:
        raise ValueError(f"{source}: the data set holds no rows")
    return _undecoded(data)


def _undecoded(data):
    """Image columns as {bytes, path}: decoding and encoding again would cost time and quality."""
    import datasets

    for name, feature in data.features.items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            data = data.cast_column(name, datasets.List(datasets.Image(decode=False)))
    return data


def image_bytes(value: Any, folder: Path) -> bytes:
    """Encoded bytes of one image given as bytes, {bytes, path}, a path (relative to `folder`), or a PIL image."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if isinstance(value, str) and value:
        path = folder / value
        if not path.is_file():
            raise ValueError(f"no such image file: {path}")
        return path.read_bytes()
    if hasattr(value, "save"):
        png = io.BytesIO()
        value.save(png, "PNG")
        return png.getvalue()
    raise ValueError(f"neither image bytes nor a path nor an image: {value!r}")


def to_example(row: Mapping[str, Any], index: int, columns: Columns, folder: Path) -> Example:
    """One source row; a row whose images column is empty becomes a text-only example."""
    values = row[columns.images] if columns.images else None
    values = [] if values is None else values if isinstance(values, list) else [values]
    try:
        images = tuple(image_bytes(value, folder) for value in values)
    except ValueError as error:
        raise ValueError(f"row {index}, column {columns.images}: {error}") from error
    for name in (columns.question, columns.answer):
        if row[name] is None or not str(row[name]).strip():
            raise ValueError(f"row {index}: column {name} is empty")
    response = row[columns.response] if columns.response else None
    return Example(f"{index:06d}", str(row[columns.question]), str(row[columns.answer]).strip(), images, response)


def unique(examples: Sequence[Example]) -> list[Example]:
    """The first example of each (question, images)."""
    first: dict[str, Example] = {}
    for example in examples:
        digest = hashlib.sha256(example.prompt.encode())
        for image in example.images:
            digest.update(hashlib.sha256(image).digest())
        first.setdefault(digest.hexdigest(), example)
    return list(first.values())


def split_examples(examples: Sequence[Example], val_rows: int, test_rows: int, seed: int) -> dict[str, list[Example]]:
    if len(examples) <= val_rows + test_rows:
        raise ValueError(
            f"{len(examples)} distinct rows leave none for training after {val_rows} for validation and {test_rows} for"
            " test; lower --val-rows or --test-rows"
        )
    shuffled = list(examples)
    random.Random(seed).shuffle(shuffled)
    held_out = val_rows + test_rows
    return {"test": shuffled[:test_rows], "val": shuffled[test_rows:held_out], "train": shuffled[held_out:]}


def prepare(source: str, out: Path, columns: Columns, *, split: str, val_rows: int, test_rows: int, seed: int) -> str:
    """Convert `source` and write the files under `out`; returns a summary."""
    from tqdm import tqdm

    data = load_source(source, split)
    missing = [name for name in columns.named() if name not in data.column_names]
    if missing:
        raise ValueError(f"{source}: no column {', '.join(missing)}; it has {', '.join(data.column_names)}")
    folder = Path(source).parent if Path(source).is_file() else Path()
    rows = tqdm(data, desc="reading", unit="row")
    examples = [to_example(row, index, columns, folder) for index, row in enumerate(rows)]
    kept = unique(examples)
    parts = split_examples(kept, val_rows, test_rows, seed)
    files = {"rl_train": parts["train"], "rl_val": parts["val"], "test": parts["test"]}
    lines = [f"{source}: {len(examples)} rows, {len(examples) - len(kept)} of them duplicates left out"]
    for name, chosen in files.items():
        if chosen:
            rl = [rl_row(e, index=i, split=name, data_source=source) for i, e in enumerate(chosen)]
            write_rows(rl, out / f"{name}.parquet")
            lines.append(f"  {name:<10} {len(chosen):>8} rows")
    for name in ("train", "val") if columns.response else ():
        if parts[name]:
            write_rows([chat_row(e) for e in parts[name]], out / f"sft_{name}.parquet")
            lines.append(f"  sft_{name:<6} {len(parts[name]):>8} rows")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="parquet, json or jsonl file, or a hub name")
    parser.add_argument("out", type=Path, help="folder for the parquet files")
    parser.add_argument("--question-column", default="question")
    parser.add_argument("--answer-column", default="answer", help="short gold answer, as rewards.grading can read it")
    parser.add_argument("--images-column", help="image, or list of images: bytes, {bytes, path}, or paths")
    parser.add_argument("--response-column", help="worked response for SFT: <think>…</think><answer>…</answer>")
    parser.add_argument("--split", default="train", help="split of a hub data set to read (default train)")
    parser.add_argument("--val-rows", type=int, default=200)
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="seed of the shuffle before splitting (default 0)")
    args = parser.parse_args(argv)
    columns = Columns(args.question_column, args.answer_column, args.images_column, args.response_column)
    limits = {"val_rows": args.val_rows, "test_rows": args.test_rows, "seed": args.seed}
    try:
        print(prepare(args.source, args.out, columns, split=args.split, **limits))
    except ValueError as error:
        print(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
