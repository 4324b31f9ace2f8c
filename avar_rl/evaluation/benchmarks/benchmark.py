"""The registry of benchmarks: the tables that each consists of, its official number of questions, its groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_tools.convert.load import FILE_LOADERS
from data_tools.convert.sources import SOURCES
from data_tools.convert.strict import BenchmarkPart, read_part
from data_tools.formats.sample import DataSample

ALL = "all"  # the name that stands for the paper's seven


@dataclass(frozen=True)
class Benchmark:
    """A benchmark. `groups` are keys of a sample's `extra` by whose values accuracy is broken down; `cluster` are those
    that together name what questions share (a figure, a problem), () where each stands for itself. `paper`: it is one
    of the seven of AVAR's paper."""

    name: str
    title: str
    parts: tuple[BenchmarkPart, ...]
    groups: tuple[str, ...]
    cluster: tuple[str, ...] = ()
    paper: bool = False

    @property
    def n(self) -> int:
        """The official number of questions, of all parts."""
        return sum(part.n for part in self.parts)


_VISION_ONLY = {"problem_version": "Vision Only"}
_KNOWN = (
    Benchmark(
        "mathvista",
        "MathVista (testmini)",
        (BenchmarkPart("testmini", "mathvista", "testmini", 1000),),
        ("task", "context", "question_type", "answer_type"),
        paper=True,
    ),
    Benchmark(
        "mathvision",
        "MathVision (test)",
        (BenchmarkPart("test", "mathvision", "test", 3040),),
        ("subject", "level"),
        paper=True,
    ),
    Benchmark(
        "mathvision_testmini",
        "MathVision (testmini)",
        (BenchmarkPart("testmini", "mathvision", "testmini", 304),),
        ("subject", "level"),
    ),
    Benchmark(
        "mathverse",
        "MathVerse (testmini, all versions)",
        (BenchmarkPart("testmini", "mathverse", "testmini", 3940),),
        ("problem_version", "subject", "subfield", "question_type"),
        cluster=("problem_index",),  # of its five versions
    ),
    Benchmark(
        "mathverse_vision_only",
        "MathVerse (testmini, vision only)",
        (BenchmarkPart("testmini", "mathverse", "testmini", 788, _VISION_ONLY),),
        ("subject", "subfield", "question_type"),
        paper=True,
    ),
    Benchmark(
        "mmmu",
        "MMMU (validation)",
        (BenchmarkPart("validation", "mmmu", "validation", 900),),
        ("discipline", "subject", "topic_difficulty", "question_type"),
        paper=True,
    ),
    Benchmark(
        "mmmu_pro",
        "MMMU-Pro (standard of 10 options, vision)",
        (BenchmarkPart("standard", "mmmu_pro", "test", 1730), BenchmarkPart("vision", "mmmu_pro_vision", "test", 1730)),
        ("part", "discipline", "subject"),
        cluster=("id",),  # both settings ask the same questions
        paper=True,
    ),
    Benchmark(
        "mmstar",
        "MMStar",
        (BenchmarkPart("val", "mmstar", "val", 1500),),
        ("category", "l2_category"),
        paper=True,
    ),
    Benchmark(
        "hallusionbench",
        "HallusionBench (image)",
        (BenchmarkPart("image", "hallusionbench", "image", 951),),
        ("category", "subcategory", "visual_input"),
        cluster=("category", "subcategory", "set_id"),
        paper=True,
    ),
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _KNOWN}


def find(name: str) -> Benchmark:
    """The benchmark with this name; ValueError, which lists all names, where there is none."""
    if name not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        raise ValueError(f"unknown benchmark {name!r}; known are {known}, and {ALL} for the paper's seven")
    return BENCHMARKS[name]


def chosen(names: Iterable[str]) -> tuple[Benchmark, ...]:
    """The benchmarks with these names, each once, in the order given; `all` stands for the paper's seven.

    Raises:
        ValueError: an unknown name; lists those there are.
    """
    papers = [benchmark for benchmark in _KNOWN if benchmark.paper]
    found = {one.name: one for name in names for one in (papers if name == ALL else [find(name)])}
    return tuple(found.values())


def read(benchmark: Benchmark, where: Mapping[str, str], limit: int | None = None) -> list[DataSample]:
    """The questions of a benchmark, all of them in their official order, part after part.

    Args:
        where: a file, a folder or a hub name for each part by its name, or one for all under ""; empty: the hub's own.
        limit: only the first so many of each part; then a file may have fewer. Every number that comes of them is to be
            marked, whatever their count.

    Raises:
        ValueError: a part without a place, an unknown part, a row that cannot be read, or not the official number of
            questions; says which.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1")
    samples: list[DataSample] = []
    for part, place in part_places(benchmark, where):
        samples += read_part(part, place, f"{benchmark.name}/{part.name}", limit)
    return samples


def part_places(benchmark: Benchmark, where: Mapping[str, str]) -> list[tuple[BenchmarkPart, str]]:
    """The parts of a benchmark, each with its file, folder or hub name; `where` as `read` takes it.

    Raises:
        ValueError: an unknown part, or one without a place.
    """
    names = [part.name for part in benchmark.parts]
    if unknown := [name for name in where if name and name not in names]:
        raise ValueError(f"{benchmark.name} has no part {unknown[0]!r}; it has {', '.join(names)}")
    default = where.get("")
    found = [(part, where.get(part.name, default if where else SOURCES[part.source].hub)) for part in benchmark.parts]
    if missing := [part.name for part, place in found if place is None]:
        raise ValueError(f"{benchmark.name}: nothing says where its part {missing[0]} is; it has {', '.join(names)}")
    return [(part, place) for part, place in found if place is not None]


def copies_in(folder: str | Path, benchmark: Benchmark) -> dict[str, str]:
    """Where the parts of a benchmark are in a folder of local copies: files (parquet, json, jsonl, tsv) or folders that
    are named NAME, or NAME_PART where there are several parts. MathVerse's subset may be in the file of the whole.

    Raises:
        ValueError: one is missing; names what it may be called.
    """
    found = {}
    for part in benchmark.parts:
        own = f"{benchmark.name}_{part.name}" if len(benchmark.parts) > 1 else benchmark.name
        names = [own, part.source] if part.keep else [own]
        paths = [Path(folder) / f"{name}{suffix}" for name in names for suffix in (*FILE_LOADERS, "")]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            raise ValueError(f"{folder}: no {own} (.parquet, .json, .jsonl, .tsv or a folder) for {benchmark.title}")
        found[part.name] = str(path)
    return found
