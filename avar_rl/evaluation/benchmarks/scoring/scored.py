"""The scored responses to a benchmark, in the order of its questions, ready for figures."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avar_rl.evaluation.benchmarks.benchmark import Benchmark
from avar_rl.evaluation.benchmarks.scoring.intervals import numbered
from data_tools.formats.sample import DataSample

# Shapes: N questions, D draws (1 greedy response, or K samples).

COLUMNS = ("official", "ours", "judge")


@dataclass(frozen=True)
class ScoredSet:
    """The questions of a benchmark, in their order, with what is scored of each.

    `greedy` has a line a question, or none at all; `sampled` K lines a question, K may be 0.
    """

    benchmark: Benchmark
    samples: tuple[DataSample, ...]
    greedy: tuple[Mapping[str, Any], ...]
    sampled: tuple[tuple[Mapping[str, Any], ...], ...]

    @cached_property
    def clusters(self) -> NDArray[np.intp]:
        """The number of every question's cluster, (N,)."""
        keys = self.benchmark.cluster
        return numbered([label(sample, keys) if keys else place for place, sample in enumerate(self.samples)])

    @property
    def clusters_n(self) -> int:
        """How many clusters there are."""
        return int(self.clusters.max()) + 1

    @property
    def seed(self) -> int:
        """Of the bootstrap: each benchmark has its own, so that their resamples are independent."""
        return zlib.crc32(self.benchmark.name.encode())

    def right(self, column: str) -> NDArray[np.float64]:
        """Whether each response that accuracy is of is right in a column: 1 or 0, (N, D)."""
        lines = [(line,) for line in self.greedy] or self.sampled
        return np.array([[float(line[column]["right"] is True) for line in of_one] for of_one in lines])

    def has(self, column: str) -> bool:
        """Whether the responses are scored in a column."""
        return all(line[column] is not None for line in self.lines)

    @property
    def lines(self) -> list[Mapping[str, Any]]:
        """The lines of the responses that accuracy is of."""
        return list(self.greedy) or [line for of_one in self.sampled for line in of_one]


def scored_set(benchmark: Benchmark, samples: Sequence[DataSample], scored: Sequence[Mapping[str, Any]]) -> ScoredSet:
    """Puts the scored lines of a benchmark in the order of its questions.

    Raises:
        ValueError: a question has no line, another number of samples than the first, or a line is of no question.
    """
    lines = {(line["id"], line["sample"]): line for line in scored}
    drawn = sorted({number for _, number in lines if number is not None})
    wanted = [*([None] if any(number is None for _, number in lines) else []), *drawn]
    missing = [sample.id for sample in samples if any((sample.id, number) not in lines for number in wanted)]
    if not samples or not wanted or missing:
        what = f"{len(missing)} of {len(samples)} questions, such as {missing[0]}," if missing else "the questions"
        raise ValueError(
            f"{benchmark.name}: {what} lack responses; the run is not finished: go on with `avar evaluate`"
        )
    if len(lines) > len(samples) * len(wanted):
        raise ValueError(f"{benchmark.name}: there are responses to other questions than the {len(samples)} asked")
    greedy = tuple(lines[sample.id, None] for sample in samples) if None in wanted else ()
    sampled = tuple(tuple(lines[sample.id, number] for number in drawn) for sample in samples) if drawn else ()
    return ScoredSet(benchmark, tuple(samples), greedy, sampled)


def label(sample: DataSample, keys: Sequence[str]) -> tuple[str, ...]:
    """What a question's `extra` has under keys, as texts: what shares it belongs together."""
    return tuple(str(sample.extra.get(key)) for key in keys)
