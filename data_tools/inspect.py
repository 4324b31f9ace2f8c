"""Look at a file of samples before spending money on it: `python -m data_tools.inspect FILE`.

Prints counts, kinds of answers, image sizes and formats, lengths in tokens (with --model, by its real processor), and
every gold that its own grader refuses or does not find equal to itself (exit status 1). --html writes a contact sheet;
--hashes writes the image hashes that `data_tools.convert --benchmark` reads.
"""

from __future__ import annotations

import argparse
import base64
import io
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.formats.sample import Sample, read_image, read_samples

THUMBNAIL = 224  # pixels
QUANTILES = (0, 5, 50, 95, 100)
SHOWN = 20


@dataclass
class Findings:
    """What a pass over the samples gathers: counts, measures (one number a row or image), faults, and sheet entries."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    measures: dict[str, list[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    sheet: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0

    def count(self, what: str, value: object) -> None:
        self.counts.setdefault(what, Counter())[str(value)] += 1

    def measure(self, what: str, value: int) -> None:
        self.measures.setdefault(what, []).append(value)


def grade_gold(sample: Sample) -> str | None:
    """Why the gold of a sample is no use: the grader refuses it, or does not accept it as an answer to itself."""
    from rewards.shipped.accuracy import accuracy

    try:
        score = accuracy(f"<answer>{sample.gold}</answer>", sample.gold)
    except ValueError as error:
        return str(error)
    return None if score == 1.0 else f"the gold answer {sample.gold!r} is graded {score} against itself"


def inspect_sample(sample: Sample, folder: Path, processor, findings: Findings) -> list[Any]:
    """Enter a sample into `findings`; returns its pictures."""
    from data_tools.convert.images import read_picture
    from data_tools.validate import token_length

    findings.rows += 1
    findings.count("source", sample.source)
    findings.count("answer", sample.gold_kind)
    findings.count("options", len(sample.options))
    findings.count("images a row", len(sample.images))
    findings.count("response", "yes" if sample.response else "no")
    findings.measure("question, characters", len(sample.text))
    if fault := grade_gold(sample):
        findings.faults.append(f"{sample.id}: {fault}")
    try:
        pictures = [read_picture(read_image(image, folder)) for image in sample.images]
    except ValueError as error:
        findings.faults.append(f"{sample.id}: image: {error}")
        return []
    for picture in pictures:
        findings.count("image format", picture.suffix)
        for name, value in (("width", picture.width), ("height", picture.height), ("bytes", len(picture.data))):
            findings.measure(f"image {name}", value)
    if processor is not None:
        turns = [{"role": "user", "content": sample.prompt}]
        sizes = [(picture.height, picture.width) for picture in pictures]
        length = token_length(processor, turns, sizes, add_generation_prompt=True)
        findings.measure("prompt, tokens", length)
        if sample.response:
            findings.measure("response, tokens", len(processor.tokenizer(sample.response)["input_ids"]))
    return pictures


def thumbnail(data: bytes) -> str:
    """A small JPEG as a data URI."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image = image.convert("RGB")
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def inspect(path: Path, model: str | None, sheet_rows: int, seed: int, hashes: Path | None) -> Findings:
    """One pass over the file. The contact sheet is a uniform choice of rows (reservoir sampling).

    Raises:
        ValueError: no file of samples, or the model holds no processor.
    """
    from tqdm import tqdm

    processor = None
    if model is not None:
        from data_tools.validate import load_processor

        processor = load_processor(model)
    findings, rng = Findings(), random.Random(seed)
    lines = []
    for index, sample in enumerate(tqdm(read_samples(path), desc="inspecting", unit="row")):
        pictures = inspect_sample(sample, path.parent, processor, findings)
        lines += [f"{picture.fingerprint.hash.hex()}  # {sample.id}" for picture in pictures]
        place = index if index < sheet_rows else rng.randrange(index + 1)
        if place < sheet_rows:
            entry = {"sample": sample, "thumbnails": [thumbnail(picture.data) for picture in pictures]}
            findings.sheet[place : place + 1] = [entry]
    if not findings.rows:
        raise ValueError(f"{path}: the file holds no samples")
    if hashes is not None:
        hashes.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return findings


def quantiles(values: Sequence[int]) -> list[int]:
    import numpy as np

    return [int(value) for value in np.percentile(values, QUANTILES)]


def print_findings(findings: Findings, path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    counts = Table("what", "counts", title=f"{path}: {findings.rows} rows")
    for what, counter in findings.counts.items():
        counts.add_row(what, ", ".join(f"{value}: {n}" for value, n in counter.most_common(SHOWN)))
    measures = Table("what", *(f"{q} %" for q in QUANTILES))
    for what, values in findings.measures.items():
        measures.add_row(what, *map(str, quantiles(values)))
    console.print(counts, measures)
    for fault in findings.faults[:SHOWN]:
        print(fault)
    if len(findings.faults) > SHOWN:
        print(f"... and {len(findings.faults) - SHOWN} more")
    print(f"{len(findings.faults)} faults")


def contact_sheet(findings: Findings, title: str) -> str:
    """The contact sheet as HTML. What stands in the data is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("data_tools", "."), autoescape=True, undefined=StrictUndefined)
    rows = {what: quantiles(values) for what, values in findings.measures.items()}
    template = environment.get_template("contact_sheet.html.jinja")
    return template.render(title=title, findings=findings, quantiles=QUANTILES, measures=rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.inspect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="file of samples, as data_tools.convert writes it")
    parser.add_argument("--model", help="model folder or hub name, for its processor: lengths in tokens")
    parser.add_argument("--html", type=Path, help="write a contact sheet here")
    parser.add_argument("--rows", type=int, default=48, help="rows on the contact sheet (default 48)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of these rows (default 0)")
    parser.add_argument("--hashes", type=Path, help="write the hashes of all images here")
    args = parser.parse_args(argv)
    try:
        findings = inspect(args.file, args.model, args.rows if args.html else 0, args.seed, args.hashes)
        print_findings(findings, args.file)
        if args.html:
            args.html.write_text(contact_sheet(findings, args.file.name), encoding="utf-8")
            print(f"contact sheet: {args.html}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if findings.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
