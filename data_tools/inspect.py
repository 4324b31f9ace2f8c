"""Look at a data file before spending money on it: `python -m data_tools.inspect FILE`.

FILE holds converted samples, RL rows or chat rows (parquet). Prints counts, kinds of questions and golds, image sizes
and formats, lengths in tokens (with --model, by its real processor), a few rows, rows that repeat an earlier one, and
every fault: a gold that its own grader refuses or does not find equal to itself, an image that cannot be read, evidence
boxes that do not fit it, a row that training could not use. Golds that only their own text can match are counted, but
are no fault. --html writes a contact sheet, with the boxes drawn on the images; --hashes writes the image hashes that
`data_tools.convert --benchmark` reads. Exit status: 0 no fault, 1 faults in the data, 2 a mistake in the command.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avar_rl.runtime.evidence import Box
    from data_tools.convert.images import Picture
    from data_tools.inspected_rows import InspectedRow

THUMBNAIL = 224  # pixels
BOX_COLOUR, BOX_WIDTH = (255, 0, 255), 2  # of an evidence box; pixels
QUANTILES = (0, 5, 50, 95, 100)
SHOWN = 20
SHOWN_ROWS = 5


@dataclass(frozen=True)
class SheetEntry:
    """A row that the contact sheet shows, and its pictures."""

    index: int
    row: InspectedRow
    pictures: Sequence[Picture]

    @property
    def thumbnails(self) -> list[str]:
        """The pictures as small JPEGs with their evidence boxes, data URIs."""
        faulty = _evidence_faults(self.row, self.pictures)
        boxes = [()] * len(self.pictures) if faulty or not self.row.evidence else self.row.evidence
        return [thumbnail(picture.data, found) for picture, found in zip(self.pictures, boxes, strict=False)]


@dataclass
class Findings:
    """What a pass over the rows gathers: counts, measures (a number per row or image), faults, repeats, sheet entries.

    `repeats` are ids of rows whose text, gold (response, in chat rows) and images are those of an earlier one;
    `near_repeats` of others whose images are near-duplicates only, as `data_tools.convert` finds them. `text_only` are
    (id, gold) of rows whose gold only its own text can match. `pass_rates`: of every row, None where none was
    measured.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    measures: dict[str, list[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    near_repeats: list[str] = field(default_factory=list)
    text_only: list[tuple[str, str]] = field(default_factory=list)
    pass_rates: list[float | None] = field(default_factory=list)
    sheet: list[SheetEntry] = field(default_factory=list)
    rows: int = 0

    def count(self, what: str, value: object) -> None:
        """Counts one row or image of which `what` is `value`."""
        self.counts.setdefault(what, Counter())[str(value)] += 1

    def measure(self, what: str, value: int) -> None:
        """Notes the number `value` for one row or image."""
        self.measures.setdefault(what, []).append(value)


def _enter_text(row: InspectedRow, findings: Findings) -> None:
    from data_tools.text_only import is_text_only

    findings.rows += 1
    findings.faults += [f"{row.id}: {fault}" for fault in row.faults]
    for what, value in (("source", row.source), ("kind", row.kind), ("gold kind", row.gold_kind)):
        if value:
            findings.count(what, value)
    if not row.faults and is_text_only(row.gold):
        findings.text_only.append((row.id, row.gold or ""))
    findings.pass_rates.append(row.pass_rate)
    findings.count("options", len(row.options))
    if row.gold is not None:
        findings.count("right answers", 1 + len(row.other_golds))
    findings.count("images per row", len(row.images))
    findings.count("response", "yes" if row.response else "no")
    if row.text:
        findings.measure("question, characters", len(row.text))


def _enter_pictures(row: InspectedRow, folder: Path, findings: Findings) -> list[Picture]:
    from avar_rl.runtime.images import image_bytes
    from data_tools.convert.images import read_picture

    try:
        pictures = [read_picture(image_bytes(image, folder)) for image in row.images]
    except ValueError as error:
        findings.faults.append(f"{row.id}: image: {error}")
        return []
    for picture in pictures:
        findings.count("image format", picture.suffix)
        for name, value in (("width", picture.width), ("height", picture.height), ("bytes", len(picture.data))):
            findings.measure(f"image {name}", value)
    if row.evidence:
        findings.count("evidence boxes", sum(map(len, row.evidence)))
    findings.faults += [f"{row.id}: {fault}" for fault in _evidence_faults(row, pictures)]
    return pictures


def _evidence_faults(row: InspectedRow, pictures: Sequence[Picture]) -> list[str]:
    from avar_rl.runtime.evidence import evidence_faults

    return evidence_faults(row.evidence, [(picture.width, picture.height) for picture in pictures])


def _enter_lengths(row: InspectedRow, pictures: Sequence[Picture], processor: Any, findings: Findings) -> None:
    from data_tools.validate import token_length

    sizes = [(picture.height, picture.width) for picture in pictures]
    findings.measure("prompt, tokens", token_length(processor, row.prompt, sizes, add_generation_prompt=True))
    if row.response:
        findings.measure("response, tokens", len(processor.tokenizer(row.response)["input_ids"]))


def thumbnail(data: bytes, boxes: Sequence[Box] = ()) -> str:
    """The encoded image `data` as a small JPEG, with frames around the boxes, a data URI."""
    from PIL import ImageDraw

    from avar_rl.runtime.images import open_image

    image = open_image(data).convert("RGB")
    width, height = image.size
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    draw, across, down = ImageDraw.Draw(image), image.width / width, image.height / height
    for x0, y0, x1, y1 in boxes:
        corners = [(x0 * across, y0 * down), (max(x0, x1 - 1) * across, max(y0, y1 - 1) * down)]
        draw.rectangle(corners, outline=BOX_COLOUR, width=BOX_WIDTH)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def inspect(path: Path, model: str | None, sheet_rows: int, seed: int, hashes: Path | None) -> Findings:
    """Makes one pass over a file, and writes the hashes of its images to the file `hashes` where there is such a name.

    `model` names the processor that counts tokens. `sheet_rows` rows, a uniform choice by `seed`, are kept for showing.

    Raises:
        ValueError: the file holds neither samples nor rows of training, or the model no processor.
    """
    from tqdm import tqdm

    from avar_rl.runtime.files import write_whole
    from data_tools.convert.duplicates import Duplicates
    from data_tools.inspected_rows import read_inspected
    from data_tools.validate import load_processor

    if sheet_rows < 0:
        raise ValueError(f"--rows is {sheet_rows}; it must be at least 0")
    processor = None if model is None else load_processor(model)
    findings, rng, lines = Findings(), random.Random(seed), []
    exact, earlier = set(), Duplicates(shared_images=True)
    for index, row in enumerate(tqdm(read_inspected(path), desc="inspecting", unit="row")):
        _enter_text(row, findings)
        pictures = _enter_pictures(row, path.parent, findings)
        prints = [picture.fingerprint for picture in pictures]
        lines += [f"{picture.hash.hex()}  # {row.id}" for picture in prints]
        whole = bool(row.text) and len(pictures) == len(row.images)
        if whole:
            said = row.response or row.gold or ""
            key = hashlib.sha256(repr((row.text, said, [picture.digest for picture in prints])).encode()).digest()
            if key in exact:
                findings.repeats.append(row.id)
            elif earlier.reason(row.text, said, prints):
                findings.near_repeats.append(row.id)
            exact.add(key)
        if whole and processor is not None:
            _enter_lengths(row, pictures, processor, findings)
        place = index if index < sheet_rows else rng.randrange(index + 1)  # reservoir sampling
        if place < sheet_rows:
            findings.sheet[place : place + 1] = [SheetEntry(index, row, pictures)]
    if not findings.rows:
        raise ValueError(f"{path}: the data file holds no rows")
    if hashes is not None:
        write_whole(hashes, "\n".join(lines) + "\n")
    return findings


def quantiles(values: Sequence[int]) -> list[int]:
    """The QUANTILES of the values, in percent, rounded down."""
    import numpy as np

    return [int(value) for value in np.percentile(values, QUANTILES)]


def print_findings(findings: Findings, path: Path) -> None:
    """Prints counts, measures, some rows, repeats and faults."""
    from avar_rl.runtime.tables import console, cut, table
    from data_tools.pass_rates import histogram

    counts = table(("what", "value", "rows"), text=("what", "value"), title=f"{path.name}: {findings.rows} rows")
    for what, counter in findings.counts.items():
        for value, n in counter.most_common(SHOWN):
            counts.add_row(cut(what), cut(value), str(n))
        if len(counter) > SHOWN:
            rest = counter.most_common()[SHOWN:]
            counts.add_row(cut(what), cut(f"{len(rest)} others"), str(sum(n for _, n in rest)))
    measures = table(("what", *(f"{q} %" for q in QUANTILES)), text=("what",))
    for what, values in findings.measures.items():
        measures.add_row(cut(what), *map(str, quantiles(values)))
    rows = table(("id", "text", "gold"), text=("id", "text", "gold"))
    for entry in sorted(findings.sheet, key=lambda entry: entry.index)[:SHOWN_ROWS]:
        golds = " | ".join([entry.row.gold or "", *entry.row.other_golds])
        rows.add_row(cut(entry.row.id), cut(entry.row.text), cut(golds))
    console().print(counts, measures, rows)
    if any(rate is not None for rate in findings.pass_rates):
        console().print(histogram(findings.pass_rates))
    nearly = "repeat an earlier one with nearly its images"
    for ids, what in ((findings.repeats, "repeat an earlier one"), (findings.near_repeats, nearly)):
        if ids:
            print(f"{len(ids)} rows {what}: {', '.join(ids[:SHOWN_ROWS])}{', …' if len(ids) > SHOWN_ROWS else ''}")
    if findings.text_only:
        from data_tools.text_only import text_only_line

        print(text_only_line(findings.text_only, findings.rows))
    for fault in findings.faults[:SHOWN]:
        print(fault)
    if len(findings.faults) > SHOWN:
        print(f"... and {len(findings.faults) - SHOWN} more")
    print(f"{len(findings.faults)} faults")


def contact_sheet(findings: Findings, title: str) -> str:
    """The contact sheet as an HTML page with this title. What stands in the data is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("data_tools", "."), autoescape=True, undefined=StrictUndefined)
    rows = {what: quantiles(values) for what, values in findings.measures.items()}
    template = environment.get_template("contact_sheet.html.jinja")
    return template.render(title=title, findings=findings, quantiles=QUANTILES, measures=rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="avar inspect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="parquet file of converted samples, RL rows or chat rows")
    parser.add_argument("--model", help="model folder or hub name, for its processor: lengths in tokens")
    parser.add_argument("--html", type=Path, help="write a contact sheet here")
    parser.add_argument("--rows", type=int, default=48, help="rows on the contact sheet (default 48)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of these rows (default 0)")
    parser.add_argument("--hashes", type=Path, help="write the hashes of all images here")
    args = parser.parse_args(argv)
    try:
        findings = inspect(args.file, args.model, args.rows, args.seed, args.hashes)
        print_findings(findings, args.file)
        if args.html:
            from avar_rl.runtime.files import write_whole

            write_whole(args.html, contact_sheet(findings, args.file.name))
            print(f"contact sheet: {args.html}")
    except (ValueError, OSError) as error:
        print(f"avar inspect: {error}", file=sys.stderr)
        return 2
    return 1 if findings.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
