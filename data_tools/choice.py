"""Which rows are held out, which of the others a training takes, and in what order.

Numbers in, places out: nothing here reads a file. Every draw depends on the seed alone.
"""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

MEASURE = "`avar difficulty MODEL FILE` measures them"


@dataclass(frozen=True)
class Split:
    """How many rows are held out, and the seed of the shuffle that decides which."""

    val_rows: int = 200
    test_rows: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name, rows in (("--val-rows", self.val_rows), ("--test-rows", self.test_rows)):
            if rows < 0:
                raise ValueError(f"{name} is {rows}; it must be at least 0")

    def names(self, count: int) -> list[str]:
        """The split (train, val or test) of each of `count` rows.

        Raises:
            ValueError: no row would be left for training.
        """
        held_out = self.val_rows + self.test_rows
        if count <= held_out:
            raise ValueError(
                f"{count} distinct rows leave none for training after {self.val_rows} for validation and"
                f" {self.test_rows} for test; lower --val-rows or --test-rows"
            )
        order = list(range(count))
        random.Random(self.seed).shuffle(order)
        names = ["train"] * count
        for place, index in enumerate(order[:held_out]):
            names[index] = "test" if place < self.test_rows else "val"
        return names


@dataclass(frozen=True)
class RowFacts:
    """What a row is chosen by: the data set that it is from, and its pass rate, None where it was not measured."""

    source: str
    pass_rate: float | None = None


@dataclass(frozen=True)
class Choice:
    """How training rows are chosen. ValueError: options that contradict each other.

    keep_pass: the least and the largest pass rate of a row that is kept; None: all rows, measured or not.
    mix: source → weight, its part of the rows; None: every source as it comes.
    mix_rows: rows of the mixture; None: the most for which no row is taken twice.
    curriculum: whether rows come from easy (the highest pass rate) to hard.
    """

    keep_pass: tuple[float, float] | None = None
    mix: Mapping[str, Fraction] | None = None
    mix_rows: int | None = None
    curriculum: bool = False

    def __post_init__(self) -> None:
        if self.mix_rows is not None and self.mix is None:
            raise ValueError("--mix-rows is the size of a mixture; say --mix NAME=WEIGHT,…, too")
        if self.mix_rows is not None and self.mix_rows < 1:
            raise ValueError(f"--mix-rows is {self.mix_rows}; it must be at least 1")

    @property
    def named(self) -> list[str]:
        """The options that ask for a choice."""
        asked = {"--keep-pass": self.keep_pass, "--mix": self.mix, "--curriculum": self.curriculum}
        return [option for option, value in asked.items() if value]

    @property
    def needs_pass_rates(self) -> bool:
        """Whether a row without a pass rate cannot be chosen."""
        return self.keep_pass is not None or self.curriculum

    def keeps(self, row: RowFacts) -> bool:
        """Whether a row can be chosen, by its pass rate."""
        if row.pass_rate is None:
            return not self.needs_pass_rates
        low, high = self.keep_pass or (0, 1)
        return low <= row.pass_rate <= high

    def places(self, rows: Sequence[RowFacts], train: Sequence[int], seed: int) -> list[int]:
        """The places in `rows` of the chosen rows, in their order, out of the places `train`.

        A place stands there several times only where `mix_rows` asks for more rows than there are. Rows keep their
        order; a mixture is shuffled, and so are rows of one pass rate in a curriculum.

        Raises:
            ValueError: an unknown source, a source without pass rates, or one of which nothing is left.
        """
        there: dict[str, list[int]] = defaultdict(list)
        for place in train:
            there[rows[place].source].append(place)
        kept: dict[str, list[int]] = {}
        for source in self._sources(there):
            kept[source] = [place for place in there[source] if self.keeps(rows[place])]
            if self.needs_pass_rates and all(rows[place].pass_rate is None for place in there[source]):
                option = "--keep-pass" if self.keep_pass else "--curriculum"
                raise ValueError(f"{option}: no training row of {source} has a pass rate; {MEASURE}")
        chosen = sorted(place for places in kept.values() for place in places)
        if not chosen:
            raise ValueError("--keep-pass: no training row is in the range; take a wider one")
        if self.mix is not None:
            chosen = self._mixed(kept, self.mix, seed)
        if self.curriculum:
            random.Random(f"{seed}/curriculum").shuffle(chosen)
            chosen.sort(key=lambda place: -(rows[place].pass_rate or 0))
        return chosen

    def _sources(self, there: Collection[str]) -> list[str]:
        if self.mix is None:
            return sorted(there)
        for name in self.mix:
            if name not in there:
                raise ValueError(f"--mix: no training row is of {name!r}; there are {', '.join(sorted(there))}")
        return list(self.mix)

    def _mixed(self, kept: Mapping[str, list[int]], weights: Mapping[str, Fraction], seed: int) -> list[int]:
        chosen = []
        counts = mixture({source: len(places) for source, places in kept.items()}, weights, self.mix_rows)
        for source, count in counts.items():
            order = list(kept[source])
            random.Random(f"{seed}/{source}").shuffle(order)
            chosen += [order[number % len(order)] for number in range(count)]
        random.Random(f"{seed}/mix").shuffle(chosen)
        return chosen


def mixture(there: Mapping[str, int], weights: Mapping[str, Fraction], rows: int | None = None) -> dict[str, int]:
    """How many rows of each source make a mixture of `rows`, or None: the largest that needs none twice.

    Parts of a row go to the sources with the largest remainders, so each count is within one row of its share.

    Args:
        there: rows of each source.

    Raises:
        ValueError: a source gets no row, as it has none or its share is too small.
    """
    for source in weights:
        if not there[source]:
            raise ValueError(f"--mix: no training row of {source} is left to choose from")
    whole = sum(weights.values())
    if rows is None:
        rows = math.floor(min(there[source] * whole / weight for source, weight in weights.items()))
    shares = {source: rows * weight / whole for source, weight in weights.items()}
    counts = {source: math.floor(share) for source, share in shares.items()}
    by_remainder = sorted(shares, key=lambda source: counts[source] - shares[source])
    for source in by_remainder[: rows - sum(counts.values())]:
        counts[source] += 1
    for source, count in counts.items():
        if not count:
            raise ValueError(f"--mix: of {rows} rows, {source} would get none; raise its weight")
    return counts


def parse_range(text: str) -> tuple[float, float]:
    """`0.1-0.9` → (0.1, 0.9). ValueError: no such range, or not within 0 and 1."""
    found = re.fullmatch(r"(\d*\.?\d+)-(\d*\.?\d+)", text.strip(), re.ASCII)
    if not found:
        raise ValueError(f"--keep-pass is {text!r}; it must be LOW-HIGH, such as 0.1-0.9")
    low, high = float(found[1]), float(found[2])
    if not low <= high <= 1:
        raise ValueError(f"--keep-pass is {text!r}; it must be LOW-HIGH with 0 <= LOW <= HIGH <= 1")
    return low, high


def parse_mix(text: str) -> dict[str, Fraction]:
    """`a=2,b=1` → the weight of each source, exactly as it is written. ValueError: no such list, or a bad weight."""
    from avar_rl.runtime.settings import Positive, parse

    weights: dict[str, Fraction] = {}
    for part in text.split(","):
        name, separator, weight = (word.strip() for word in part.rpartition("="))
        if not (separator and name):
            raise ValueError(f"--mix is {text!r}; it must be NAME=WEIGHT,NAME=WEIGHT,…")
        if name in weights:
            raise ValueError(f"--mix names {name} twice")
        weights[name] = Fraction(repr(parse(Positive, weight, f"--mix {name}")))
    return weights
