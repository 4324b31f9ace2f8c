"""The registry of benchmarks: the tables that each consists of, its official number of questions, its groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from data_tools.formats.sample import DataSample

ALL = "all"  # the name that stands for the paper's seven


@dataclass(frozen=True)
class Part:
    """One table of rows with an official number of questions.

    `source` names a source of `data_tools.convert.sources`, `split` is the hub's. `n` is the official number of
    questions, of those rows whose `extra` has the values of `keep`.
    """

    name: str
    source: str
    split: str
    n: int
    keep: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark. `groups` are keys of a sample's `extra` by whose values accuracy is broken down; `cluster` are those
    that together name what questions share (a figure, a problem), () where each stands for itself. `paper`: it is one
    of the seven of AVAR's paper."""

    name: str
    title: str
    parts: tuple[Part, ...]
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
        (Part("testmini", "mathvista", "testmini", 1000),),
        ("task", "context", "question_type", "answer_type"),
        paper=True,
    ),
    Benchmark(
        "mathvision",
        "MathVision (test)",
        (Part("test", "mathvision", "test", 3040),),
        ("subject", "level"),
        paper=True,
    ),
    Benchmark(
        "mathvision_testmini",
        "MathVision (testmini)",
        (Part("testmini", "mathvision", "testmini", 304),),
        ("subject", "level"),
    ),
    Benchmark(
        "mathverse",
        "MathVerse (testmini, all versions)",
        (Part("testmini", "mathverse", "testmini", 3940),),
        ("problem_version", "subject", "subfield", "question_type"),
        cluster=("problem_index",),  # of its five versions
    ),
    Benchmark(
        "mathverse_vision_only",
        "MathVerse (testmini, vision only)",
        (Part("testmini", "mathverse", "testmini", 788, _VISION_ONLY),),
        ("subject", "subfield", "question_type"),
        paper=True,
    ),
    Benchmark(
        "mmmu",
        "MMMU (validation)",
        (Part("validation", "mmmu", "validation", 900),),
        ("discipline", "subject", "topic_difficulty", "question_type"),
        paper=True,
    ),
    Benchmark(
        "mmmu_pro",
        "MMMU-Pro (standard of 10 options, vision)",
        (Part("standard", "mmmu_pro", "test", 1730), Part("vision", "mmmu_pro_vision", "test", 1730)),
        ("part", "discipline", "subject"),
        cluster=("id",),  # both settings ask the same questions
        paper=True,
    ),
    Benchmark(
        "mmstar",
        "MMStar",
        (Part("val", "mmstar", "val", 1500),),
        ("category", "l2_category"),
        paper=True,
    ),
    Benchmark(
        "hallusionbench",
        "HallusionBench (image)",
        (Part("image", "hallusionbench", "image", 951),),
        ("category", "subcategory", "visual_input"),
        cluster=("category", "subcategory", "set_id"),
        paper=True,
    ),
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _KNOWN}


def find(name: str) -> Benchmark:
    """The benchmark with this name; ValueError, which lists all names, where there is none."""
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; known are {', '.join(BENCHMARKS)}, and {ALL} for the paper's seven")
    return BENCHMARKS[name]


def chosen(names: Iterable[str]) -> tuple[Benchmark, ...]:
    """The benchmarks with these names, each once, in the order given; `all` stands for the paper's seven.

    Raises:
        ValueError: an unknown name; lists those there are.
    """
    papers = [benchmark for benchmark in _KNOWN if benchmark.paper]
    found = {one.name: one for name in names for one in (papers if name == ALL else [find(name)])}
    return tuple(found.values())


def known_options(sample: DataSample) -> tuple[str, ...]:
    """The texts of a question's options, A first, also of those that stand in its text or its image already.

    The latter are in `extra["options"]` and not in `options`, so that no prompt writes them a second time.
    """
    return sample.options or tuple(sample.extra.get("options") or ())
