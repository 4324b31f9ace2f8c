"""Check a data file before training: `python -m data_tools.validate FILE --model DIR --max-prompt-length N`.

Every row is checked and every fault reported in one go, with the row's index and id; any fault makes the exit status 1.
Works on RL rows and chat rows. Lengths are the processor's: the chat template's text plus the
image tokens at the size to which the processor would resize each image.
"""

from __future__ import annotations

import argparse
import functools
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.formats.rows import IMAGE_PLACEHOLDER, read_rows, write_rows
from rewards.sample import row_options

RL_COLUMNS = ("data_source", "prompt", "images", "reward_model")
CHAT_COLUMNS = ("messages", "images")
MAX_PRINTED = 50


@dataclass(frozen=True)
class Fault:
    index: int
    id: str
    text: str

    def __str__(self) -> str:
        return f"row {self.index} (id {self.id}): {self.text}"


@dataclass(frozen=True)
class Report:
    """Outcome for one file. `kept` are indices of rows within the limit; `overlong` are (index, id, tokens)."""

    rows: int
    faults: tuple[Fault, ...]
    overlong: tuple[tuple[int, str, int], ...]
    longest: int
    kept: tuple[int, ...]


def load_processor(model: str | Path):
    """The model's processor.

    Raises:
        ValueError: there is none, or one without an image processor or chat template.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ValueError(f"{model}: holds no processor that transformers can load ({error})") from error
    if not hasattr(processor, "image_processor"):  # without its files, transformers falls back to a bare tokenizer
        raise ValueError(f"{model}: no image processor (preprocessor_config.json or processor_config.json is missing)")
    if processor.chat_template is None:
        raise ValueError(f"{model}: the processor has no chat template (chat_template.jinja is missing)")
    return processor


def _row_id(row: dict[str, Any]) -> str:
    found = row.get("id") or (row.get("extra_info") or {}).get("id")
    return str(found) if found else "none"


def structured_turns(turns: list[dict[str, str]]) -> list[dict[str, Any]]:
    """`<image>` in the text becomes an image part, as verl does it."""

    def parts(content: str) -> list[dict[str, str]]:
        pieces = [piece for piece in re.split(f"({IMAGE_PLACEHOLDER})", content) if piece]
        return [{"type": "image"} if p == IMAGE_PLACEHOLDER else {"type": "text", "text": p} for p in pieces]

    return [{"role": turn["role"], "content": parts(turn["content"])} for turn in turns]


def token_length(
    processor, turns: list[dict[str, str]], sizes: Sequence[tuple[int, int]], *, add_generation_prompt: bool
) -> int:
    """Tokens of a conversation whose images have `sizes` (height, width) in pixels, as the processor counts."""
    text = processor.apply_chat_template(
        structured_turns(turns), add_generation_prompt=add_generation_prompt, tokenize=False
    )
    images = processor.image_processor
    patches = [images.get_number_of_image_patches(height, width, {}) for height, width in sizes]
    # Each image already counts as one pad token in the text.
    return len(processor.tokenizer(text)["input_ids"]) + sum(p // images.merge_size**2 - 1 for p in patches)


def _check_images(row: dict[str, Any]) -> tuple[list[tuple[int, int]], list[str]]:
    """(height, width) of each image, and what is wrong with the others."""
    from PIL import Image, UnidentifiedImageError

    sizes, faults = [], []
    for number, entry in enumerate(row["images"] or []):
        if not entry or not entry.get("bytes"):
            faults.append(f"image {number} is missing (no bytes)")
            continue
        try:
            image = Image.open(io.BytesIO(entry["bytes"]))
            image.load()
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            faults.append(f"image {number} cannot be read ({type(error).__name__}: {error})")
            continue
        sizes.append((image.height, image.width))
    return sizes, faults


def _check_turns(turns: list[dict[str, str]] | None, column: str) -> list[str]:
    if not turns:
        return [f"`{column}` is empty"]
    blank = [
        str(i) for i, turn in enumerate(turns) if not (turn["role"] and turn["content"] and turn["content"].strip())
    ]
    return [f"turn {', '.join(blank)} of `{column}` has no role or no text"] if blank else []


def _answer_of_chat(turns: list[dict[str, str]]) -> str | None:
    found = re.findall(r"<answer>(.*?)</answer>", turns[-1]["content"], re.DOTALL)
    return found[-1] if turns[-1]["role"] == "assistant" and found else None


def _check_answer(answer: str | None, check_gold: Callable[[str], None], where: str) -> list[str]:
    if answer is None:
        return [f"no answer in {where}"]
    if not answer.strip():
        return [f"the answer in {where} is empty"]
    try:
        check_gold(answer)
    except ValueError as error:
        return [f"the answer {answer!r} in {where} cannot be scored: {error}"]
    return []


def _check_options(row: dict[str, Any]) -> list[str]:
    try:
        row_options(row.get("extra_info"))
    except ValueError as error:
        return [str(error)]
    return []


def check_row(row: dict[str, Any], processor, check_gold: Callable[[str], None]) -> tuple[list[str], int | None]:
    """Faults of one RL or chat row, and its length in tokens (None where it cannot be had)."""
    chat = "messages" in row
    column = "messages" if chat else "prompt"
    turns = row[column]
    faults = _check_turns(turns, column)
    sizes, image_faults = _check_images(row)
    faults += image_faults
    if not faults or faults == image_faults:
        places = sum(turn["content"].count(IMAGE_PLACEHOLDER) for turn in turns)
        images = len(row["images"] or [])
        if places != images:
            faults.append(f"`{IMAGE_PLACEHOLDER}` stands {places} times in `{column}`, but the row has {images} images")
        if chat:
            faults += _check_answer(_answer_of_chat(turns), check_gold, "<answer></answer> of the last assistant turn")
    if not chat:
        faults += _check_answer(
            (row["reward_model"] or {}).get("ground_truth"), check_gold, "reward_model.ground_truth"
        )
        faults += _check_options(row)
    if faults:
        return faults, None
    return [], token_length(processor, turns, sizes, add_generation_prompt=not chat)


def check_columns(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    needed = CHAT_COLUMNS if "messages" in rows[0] else RL_COLUMNS
    missing = [column for column in needed if column not in rows[0]]
    if missing:
        raise ValueError(
            f"{path}: missing columns {', '.join(missing)}; it has {', '.join(rows[0])}. RL rows need"
            f" {', '.join(RL_COLUMNS)}; chat rows need {', '.join(CHAT_COLUMNS)} (text-only rows: an empty `images`)"
        )


def validate_rows(
    rows: Sequence[dict[str, Any]], processor, max_length: int, check_gold: Callable[[str], None]
) -> Report:
    """Check all rows. Overlong rows are listed apart: whether they are faults is the caller's policy."""
    from tqdm import tqdm

    faults, overlong, kept, longest = [], [], [], 0
    for index, row in enumerate(tqdm(rows, desc="checking rows", unit="row")):
        texts, length = check_row(row, processor, check_gold)
        faults += [Fault(index, _row_id(row), text) for text in texts]
        longest = max(longest, length or 0)
        if length is not None and length > max_length:
            overlong.append((index, _row_id(row), length))
        else:
            kept.append(index)
    return Report(len(rows), tuple(faults), tuple(overlong), longest, tuple(kept))


def _print_report(report: Report, max_length: int, policy: str, path: Path) -> None:
    long_lines = [f"row {i} (id {id_}): {n} tokens, over the limit of {max_length}" for i, id_, n in report.overlong]
    lines = [str(fault) for fault in report.faults] + (long_lines if policy == "error" else [])
    print("\n".join(lines[:MAX_PRINTED]))
    if len(lines) > MAX_PRINTED:
        print(f"... and {len(lines) - MAX_PRINTED} more")
    print(
        f"{path}: {report.rows} rows, {len(report.faults)} faults, {len(report.overlong)} over {max_length} tokens"
        f" (policy: {policy}), longest {report.longest} tokens"
    )


def run(path: Path, model: str, max_length: int, overlong: str, out: Path | None) -> int:
    """Validate a file, print the report, write the kept rows to `out` where asked; returns the exit status."""
    rows = read_rows(path)
    check_columns(rows, path)

    from rewards.shipped.accuracy import check_gold

    # Gold answers repeat, and parsing one may start a process.
    report = validate_rows(rows, load_processor(model), max_length, functools.cache(check_gold))
    _print_report(report, max_length, overlong, path)
    if report.faults or (report.overlong and overlong == "error"):
        return 1
    if not report.kept:
        raise ValueError(f"{path}: all {report.rows} rows are over the limit of {max_length} tokens; raise the limit")
    if out is not None:
        write_rows([rows[index] for index in report.kept], out)
        print(f"{out}: {len(report.kept)} rows written")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="parquet file of RL or chat rows")
    parser.add_argument("--model", required=True, help="model folder, for its processor")
    parser.add_argument(
        "--max-prompt-length",
        "--max-length",
        dest="max_length",
        type=int,
        required=True,
        help="limit in tokens: of the prompt (RL rows), of the whole conversation (chat rows)",
    )
    parser.add_argument("--overlong", choices=("error", "drop"), default="error", help="drop needs --out")
    parser.add_argument("--out", type=Path, help="write the rows within the limit here, where nothing else is wrong")
    args = parser.parse_args(argv)
    if args.overlong == "drop" and args.out is None:
        parser.error("--overlong drop needs --out: the file for the rows that are kept")
    try:
        return run(args.file, args.model, args.max_length, args.overlong, args.out)
    except ValueError as error:
        print(f"error: {error}")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
