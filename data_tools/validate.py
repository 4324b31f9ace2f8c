"""Check a data file before training: `python -m data_tools.validate FILE --model DIR --max-prompt-length N`.

Every row is checked and every fault reported in one go, with the row's index and id. Works on RL rows and chat rows.
Lengths are the processor's: the chat template's text plus the image tokens at the size to which the processor would
resize each image. Exit status: 0 no fault, 1 faults in the data (or rows over the limit, by the policy), 2 a mistake in
the command: no such file, no RL or chat rows, no such model.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avar_rl.runtime.evidence import Evidence, EvidenceError, evidence_faults, read_evidence
from avar_rl.runtime.files import read_parquet
from avar_rl.runtime.images import decoder_faults, open_image
from avar_rl.runtime.pixels import MAX_RATIO
from data_tools.formats.markup import markup_fault
from data_tools.formats.rows import IMAGE_PLACEHOLDER, row_format, write_rows
from data_tools.pass_rates import row_pass_rate
from data_tools.text_only import is_text_only, text_only_line
from rewards.sample import row_options, row_other_golds

MAX_PRINTED = 50

Turn = dict[str, str]  # role, content
Row = dict[str, Any]  # an RL row or a chat row
CheckGold = Callable[[str], None]  # raises ValueError for a gold answer that cannot be scored


@dataclass(frozen=True)
class Fault:
    """What is wrong with the row at `index` of a file."""

    index: int
    id: str
    text: str

    def __str__(self) -> str:
        return f"row {self.index} (id {self.id}): {self.text}"


@dataclass(frozen=True)
class ValidationReport:
    """What was found in one file of `rows` rows.

    `overlong`: (index, id, tokens) of rows over the limit; `kept`: indices of the others; `longest`: tokens of the
    longest row; `text_only`: (id, gold) of rows whose gold only its own text can match.
    """

    rows: int
    faults: tuple[Fault, ...]
    overlong: tuple[tuple[int, str, int], ...]
    longest: int
    kept: tuple[int, ...]
    text_only: tuple[tuple[str, str], ...] = ()


def gold_of_row(row: Row) -> str | None:
    """The gold answer of an RL or chat row whose columns have the right types; None where it has none."""
    if "messages" in row:
        return gold_of_chat(row["messages"])
    return (row["reward_model"] or {}).get("ground_truth")


def load_processor(model: str | Path) -> Any:
    """The processor (tokenizer, image processor, chat template) of a model folder, or of a name on the hub.

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


def row_id(row: Row) -> str | None:
    """The id of an RL or chat row, a text or a number; None where it has none."""
    extra = row.get("extra_info")
    found = row.get("id") or (extra.get("id") if isinstance(extra, dict) else None)
    return str(found) if found and isinstance(found, str | int) else None


def structured_turns(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Turns for the chat template: each `<image>` in a text becomes an image part, as verl does it."""

    def parts(content: str) -> list[Turn]:
        pieces = [piece for piece in re.split(f"({IMAGE_PLACEHOLDER})", content) if piece]
        return [{"type": "image"} if p == IMAGE_PLACEHOLDER else {"type": "text", "text": p} for p in pieces]

    return [{"role": turn["role"], "content": parts(turn["content"])} for turn in turns]


def token_length(
    processor: Any, turns: Sequence[Turn], sizes: Sequence[tuple[int, int]], *, add_generation_prompt: bool
) -> int:
    """Tokens of a conversation as the processor counts them, image tokens included.

    Args:
        sizes: (height, width) in pixels of the images, in the order of their `<image>`.
    """
    text = processor.apply_chat_template(
        structured_turns(turns), add_generation_prompt=add_generation_prompt, tokenize=False
    )
    images = processor.image_processor
    patches = [images.get_number_of_image_patches(height, width, {}) for height, width in sizes]
    # Each image already counts as one pad token in the text.
    return len(processor.tokenizer(text)["input_ids"]) + sum(p // images.merge_size**2 - 1 for p in patches)


def gold_of_chat(turns: Sequence[Turn]) -> str | None:
    """The gold answer of a chat row: the last `<answer>…</answer>` of its last turn; None where there is none."""
    found = re.findall(r"<answer>(.*?)</answer>", turns[-1]["content"], re.DOTALL)
    return found[-1] if turns[-1]["role"] == "assistant" and found else None


def check_images(row: Row) -> tuple[list[tuple[int, int]], list[str]]:
    """(height, width) of each image of a row, and what is wrong with the others. Every pixel is decoded."""
    sizes, faults = [], []
    for number, entry in enumerate(row["images"] or []):
        if not entry or not entry.get("bytes"):
            faults.append(f"image {number} is missing (no bytes)")
            continue
        if not isinstance(entry["bytes"], bytes):
            faults.append(f"image {number} is a {type(entry['bytes']).__name__}; it must be the bytes of a file")
            continue
        try:
            image = open_image(entry["bytes"])
            with decoder_faults():
                image.load()
        except ValueError as error:
            faults.append(f"image {number}: {error}")
            continue
        if max(image.size) > MAX_RATIO * min(image.size):
            narrow = f"{image.width} x {image.height} pixels"
            faults.append(f"image {number} has {narrow}; the processor takes no side over {MAX_RATIO} times the other")
            continue
        sizes.append((image.height, image.width))
    return sizes, faults


def check_types(row: Row) -> list[str]:
    """Which columns of an RL or chat row are of another type than its format's; nothing else can be checked then."""
    faults = [
        f"`{name}` is a {type(row[name]).__name__}; it must be a mapping"
        for name in ("reward_model", "extra_info")
        if row.get(name) is not None and not isinstance(row[name], dict)
    ]
    for name, entries in (("messages", "role, content"), ("prompt", "role, content"), ("images", "bytes")):
        value = row.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(e, dict | None) for e in value)):
            faults.append(f"`{name}` is a {type(value).__name__}; it must be a list of {{{entries}}}")
    if faults:
        return faults
    try:
        _evidence(row)
    except EvidenceError as error:
        return [str(error)]
    return []


def _evidence(row: Row) -> Evidence:
    return read_evidence((row.get("extra_info") or {}).get("evidence"))


def check_turns(turns: list[Turn] | None, column: str, tokenizer: Any = None) -> list[str]:
    """What is wrong with the turns of a column: none, a turn without a role or text, markup in a text.

    Only in a user's turn does `<image>` stand for an image. `tokenizer`: see `check_text`.
    """
    if not turns:
        return [f"`{column}` is empty"]
    blank = [
        str(i)
        for i, turn in enumerate(turns)
        if not (turn and _is_text(turn.get("role")) and _is_text(turn.get("content")))
    ]
    if blank:
        return [f"turn {', '.join(blank)} of `{column}` has no role or no text"]
    found = (
        markup_fault(f"turn {i} of `{column}`", turn["content"], tokenizer, images=turn["role"] == "user")
        for i, turn in enumerate(turns)
    )
    return [fault for fault in found if fault]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check_gold(gold: str | None, check_gold: CheckGold, where: str) -> list[str]:
    if gold is None:
        return [f"no gold answer in {where}"]
    if not isinstance(gold, str):
        return [f"the gold answer in {where} is a {type(gold).__name__}; it must be a text"]
    if not gold.strip():
        return [f"the gold answer in {where} is empty"]
    try:
        check_gold(gold)
    except ValueError as error:
        return [f"the gold answer {gold!r} in {where} cannot be scored: {error}"]
    return []


def _check_extra(row: Row, check_gold: CheckGold) -> list[str]:
    try:
        row_options(row.get("extra_info"))
        others = row_other_golds(row.get("extra_info"))
        row_pass_rate(row.get("extra_info"))
    except ValueError as error:
        return [str(error)]
    return [fault for gold in others for fault in _check_gold(gold, check_gold, "extra_info.other_golds")]


def _check_names(row: Row) -> list[str]:
    extra = row.get("extra_info") or {}
    names = {"id": row.get("id"), "data_source": row.get("data_source")}
    names |= {f"extra_info.{name}": extra.get(name) for name in ("id", "kind", "gold_kind")}
    return [
        f"`{name}` is a {type(value).__name__}; it must be a text"
        for name, value in names.items()
        if not (value is None or isinstance(value, str) or (name.endswith("id") and isinstance(value, int)))
    ]


def check_evidence(row: Row, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """What is wrong with the evidence boxes of a row whose columns have the right types.

    Args:
        sizes: (height, width) in pixels of all images of the row.
    """
    return evidence_faults(_evidence(row), [(width, height) for height, width in sizes])


def check_text(row: Row, check_gold: CheckGold, tokenizer: Any = None) -> list[str]:
    """What is wrong with an RL or chat row whose columns have the right types, apart from the images themselves: turns,
    markup in them, places of images, gold answer, options, names.

    `tokenizer`: the model's; then markup in a turn is also found by the ids of its special tokens.
    """
    chat = "messages" in row
    column = "messages" if chat else "prompt"
    turns = row[column]
    faults = check_turns(turns, column, tokenizer)
    if not faults:
        places, images = sum(turn["content"].count(IMAGE_PLACEHOLDER) for turn in turns), len(row["images"] or [])
        if places != images:
            faults.append(f"`{IMAGE_PLACEHOLDER}` stands {places} times in `{column}`, but the row has {images} images")
        if chat:
            faults += _check_gold(gold_of_chat(turns), check_gold, "<answer></answer> of the last assistant turn")
    if not chat:
        gold = (row["reward_model"] or {}).get("ground_truth")
        faults += _check_gold(gold, check_gold, "reward_model.ground_truth") + _check_extra(row, check_gold)
    return faults + _check_names(row)


def check_row(row: Row, processor: Any, check_gold: CheckGold) -> tuple[list[str], int | None]:
    """All that is wrong with one RL or chat row, and its length in tokens.

    The length is that of the prompt of an RL row and of the whole conversation of a chat row; None for a faulty row.
    """
    if faults := check_types(row):
        return faults, None
    sizes, image_faults = check_images(row)
    image_faults = image_faults or check_evidence(row, sizes)
    if faults := check_text(row, check_gold, processor.tokenizer) + image_faults:
        return faults, None
    chat = "messages" in row
    return [], token_length(processor, row["messages" if chat else "prompt"], sizes, add_generation_prompt=not chat)


def validate_rows(rows: Sequence[Row], processor: Any, max_length: int, check_gold: CheckGold) -> ValidationReport:
    """Checks all rows. Those over `max_length` tokens are listed apart: whether they are faults is for the caller."""
    from tqdm import tqdm

    faults, overlong, kept, longest, text_only = [], [], [], 0, []
    for index, row in enumerate(tqdm(rows, desc="checking rows", unit="row")):
        id = row_id(row) or "none"
        texts, length = check_row(row, processor, check_gold)
        faults += [Fault(index, id, text) for text in texts]
        longest = max(longest, length or 0)
        if not texts and is_text_only(gold := gold_of_row(row) or ""):
            text_only.append((id, gold))
        if length is not None and length > max_length:
            overlong.append((index, id, length))
        else:
            kept.append(index)
    return ValidationReport(len(rows), tuple(faults), tuple(overlong), longest, tuple(kept), tuple(text_only))


def _print_report(report: ValidationReport, max_length: int, policy: str, path: Path) -> None:
    long_lines = [f"row {i} (id {id_}): {n} tokens, over the limit of {max_length}" for i, id_, n in report.overlong]
    lines = [str(fault) for fault in report.faults] + (long_lines if policy == "error" else [])
    for line in lines[:MAX_PRINTED]:
        print(line)
    if len(lines) > MAX_PRINTED:
        print(f"... and {len(lines) - MAX_PRINTED} more")
    if report.text_only:
        print(text_only_line(report.text_only, report.rows))
    print(
        f"{path}: {report.rows} rows, {len(report.faults)} faults, {len(report.overlong)} over {max_length} tokens"
        f" (policy: {policy}), longest {report.longest} tokens"
    )


def run(path: Path, model: str, max_length: int, overlong: str, out: Path | None) -> int:
    """Validates a file, prints the report, writes the kept rows to `out` where asked; returns the exit status.

    Raises:
        ValueError: no such file, no RL or chat rows, or a model without a processor.
    """
    rows = read_parquet(path)
    row_format(rows[0], path)

    from rewards.shipped.accuracy import check_gold

    # Gold answers repeat, and parsing one may start a process.
    report = validate_rows(rows, load_processor(model), max_length, functools.cache(check_gold))
    _print_report(report, max_length, overlong, path)
    if report.faults or (report.overlong and overlong == "error"):
        return 1
    if not report.kept:
        print(f"{path}: all {report.rows} rows are over the limit of {max_length} tokens; raise the limit")
        return 1
    if out is not None:
        write_rows([rows[index] for index in report.kept], out, like=[path])
        print(f"{out}: {len(report.kept)} rows written")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="avar validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    except (ValueError, OSError) as error:
        print(f"avar validate: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
