"""One run of a converter: its splits in order, their files, and the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from avar_rl.runtime.files import write_json, write_whole
from data_tools.convert.duplicates import Duplicates, read_benchmark
from data_tools.convert.images import MAX_PIXELS
from data_tools.convert.load import open_rows, settled
from data_tools.convert.pipeline import Converted, Converter, Rejection
from data_tools.convert.sources.source import Source
from data_tools.formats.sample import DataSample, SampleWriter

BAD = (
    "row",
    "image",
    "gold",
    "several answers",
    "markup",
    "evidence",
)  # kinds of rejections that are faults of the data; the others are duplicates
SHOWN = 10


@dataclass(frozen=True)
class Options:
    """How to convert.

    `images`: "bytes" keeps them in the parquet file, "paths" in OUT/images, one file per picture. `benchmark`: a list
    of image hashes that no row may contain. `shared_images`: keep rows whose image an earlier split shows.
    `max_pixels`: of an image; larger ones are rejected. `workers`: threads that decode images. `markup`: "reject" rows
    with chat markup in a text, or "escape" it.
    """

    images: str = "bytes"
    benchmark: Path | None = None
    shared_images: bool = False
    max_pixels: int = MAX_PIXELS
    workers: int = 2
    markup: str = "reject"


@dataclass
class SplitReport:
    """Counts of one split: of its rows, by the kind of rejection of those left out, and of what was done to pictures.

    `data`: the file, folder or hub name that was read.
    """

    split: str
    data: str
    rows: int = 0
    written: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)

    @property
    def bad(self) -> int:
        """How many rows were left out for faults of theirs, duplicates aside."""
        return sum(self.rejected[kind] for kind in BAD)

    def as_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return vars(self) | {"rejected": dict(self.rejected), "images": dict(self.images)}


@dataclass(frozen=True)
class ConversionReport:
    """What became of the rows of a source, split by split."""

    source: str
    splits: tuple[SplitReport, ...]

    def write(self, path: Path) -> None:
        """Writes the report as JSON."""
        write_json(path, {"source": self.source, "splits": [split.as_json() for split in self.splits]})

    def exit_status(self, max_rejected: float) -> int:
        """1 where more than the share `max_rejected` of the rows of a split are bad, which is printed; else 0."""
        over = [split for split in self.splits if split.bad > max_rejected * split.rows]
        for split in over:
            print(
                f"{split.split}: {split.bad} of {split.rows} rows are bad, over the limit of {max_rejected:.1%}; see"
                " rejected.jsonl, and raise --max-rejected if that is what the data is like"
            )
        return 1 if over else 0


def places(source: Source, data: Sequence[str] | None, splits: Sequence[str] | None) -> list[tuple[str, str]]:
    """(split, where its rows are) for each split to convert, in order, from the values of --data and --split.

    Raises:
        ValueError: the source has no hub name and no data is given, or data and splits do not fit together.
    """
    named = [(entry.partition("=")[0], entry.partition("=")[2]) for entry in data or () if "=" in entry]
    plain = [entry for entry in data or () if "=" not in entry]
    if named and (plain or splits):
        raise ValueError("--data with SPLIT= already names every split: give no other --data and no --split beside it")
    if named:
        return named
    if len(plain) > 1:
        raise ValueError(f"--data is given {len(plain)} times: write SPLIT=WHERE to say which split each one is")
    where = plain[0] if plain else source.hub
    if where is None:
        raise ValueError(f"{source.name} has no home on the hub: say with --data where its rows are")
    if Path(where).is_file():
        if splits and len(splits) > 1:
            raise ValueError(f"{where} is one file, but --split names {len(splits)} splits")
        return [((splits or ("train",))[0], where)]
    return [(split, where) for split in splits or source.splits]


def run(
    source: Source, out: Path, data: Sequence[str] | None, splits: Sequence[str] | None, options: Options
) -> ConversionReport:
    """Converts the splits of a source, writes the files under `out`, prints the report and returns it.

    `data` and `splits` are the values of --data and --split, None where these were not given.

    Raises:
        ValueError: wrong options, data that cannot be loaded, or a split of which no row is left.
        OSError: a file cannot be written (no space, no permission).
    """
    from rewards.shipped.accuracy import check_gold

    wanted = places(source, data, splits)
    benchmark = read_benchmark(options.benchmark) if options.benchmark else None
    duplicates = Duplicates(benchmark, shared_images=options.shared_images)
    out.mkdir(parents=True, exist_ok=True)
    report = ConversionReport(source.name, ())
    with (out / "rejected.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as rejected:
        for split, where in wanted:
            duplicates.next_split()
            settings = (options.max_pixels, options.workers, options.markup == "escape")
            converter = Converter(settled(source, where, split), split, check_gold, *settings)
            done = _split(converter, where, out, duplicates, options, rejected)
            report = replace(report, splits=(*report.splits, done))
            report.write(out / "report.json")
    _print(report)
    return report


def _split(
    converter: Converter, where: str, out: Path, duplicates: Duplicates, options: Options, rejected: TextIO
) -> SplitReport:
    from tqdm import tqdm

    report = SplitReport(converter.split, where)
    outcomes = converter.convert(open_rows(converter.source, where, converter.split), duplicates)
    with SampleWriter(out / f"{converter.split}.parquet") as writer:
        for outcome in tqdm(outcomes, desc=converter.split, unit="row"):
            report.rows += 1
            if isinstance(outcome, Rejection):
                _reject(outcome, report, rejected)
                continue
            report.images.update(change for picture in outcome.pictures for change in picture.changes)
            writer.add(outcome.sample if options.images == "bytes" else _with_paths(outcome, out))
        report.written = writer.rows
        if not writer.rows:
            raise ValueError(
                f"{where}: none of the {report.rows} rows of {converter.split} is left; see {rejected.name}"
            )
    return report


def _reject(rejection: Rejection, report: SplitReport, file: TextIO) -> None:
    from tqdm import tqdm

    from avar_rl.runtime.tables import printable

    report.rejected[rejection.kind] += 1
    file.write(json.dumps({"split": report.split, **asdict(rejection)}, ensure_ascii=False) + "\n")
    file.flush()
    if rejection.kind in BAD and report.bad <= SHOWN:
        tqdm.write(printable(f"{report.split}, row {rejection.index}: {rejection.kind}: {rejection.text}"))


def _with_paths(converted: Converted, out: Path) -> DataSample:
    """The sample with its images in OUT/images, named by their content."""
    paths = []
    for picture in converted.pictures:
        path = out / "images" / f"{picture.fingerprint.digest.hex()[:32]}.{picture.suffix}"
        if not path.is_file():
            write_whole(path, picture.data)
        paths.append(str(path.relative_to(out)))
    return replace(converted.sample, images=tuple(paths))


def _print(report: ConversionReport) -> None:
    from rich.text import Text

    from avar_rl.runtime.tables import console, table

    texts = ("rejected", "images changed")
    shown = table(("split", "rows", "written", *texts), text=texts, title=report.source)
    for split in report.splits:
        counts = ["\n".join(f"{n} {what}" for what, n in c.most_common()) for c in (split.rejected, split.images)]
        shown.add_row(split.split, str(split.rows), str(split.written), *map(Text, counts))
    console().print(shown)
