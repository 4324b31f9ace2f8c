"""Figures of benchmarks in words, the same in every report: scores in percent, intervals, counts, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from avar_rl.evaluation.benchmarks.scoring.totals import reported

LIMITED = "LIMITED"  # stands with every number that comes of a part of a benchmark's questions


class Metric(NamedTuple):
    """A share by name, with its 95 % interval, None where there are too few questions for one."""

    name: str
    value: float
    interval: Sequence[float] | None


def metrics(figures: Mapping[str, Any], column: str) -> list[Metric]:
    """The benchmark's own metrics in a column, the one that is reported first; [] where the column is missing.

    A benchmark without metrics of its own has its accuracy.
    """
    found = figures["columns"].get(column)
    return [] if found is None else [Metric(name, *one) for name, one in reported(found).items()]


def of_group(group: Mapping[str, Any], column: str) -> Metric | None:
    """The accuracy of a group of questions in a column, None where it is not scored there."""
    found = group.get(column)
    return None if found is None else Metric("accuracy", found["accuracy"], found["interval"])


def percent(share: float | None) -> str:
    """0.583 → 58.3; – for None."""
    return "–" if share is None else f"{100 * share:.1f}"


def give_or_take(value: float, interval: Sequence[float] | None) -> str:
    """0.583 with [0.55, 0.61] → 58.3 ± 3.0, half of the interval's width; 58.3 without one."""
    return percent(value) + (f" ± {50 * (interval[1] - interval[0]):.1f}" if interval else "")


def points(difference: float) -> str:
    """0.021 → +2.1"""
    return f"{100 * difference:+.1f}"


def between(interval: Sequence[float] | None, show=percent) -> str:
    """[0.55, 0.615] → [55.0, 61.5]; "" for None."""
    return "" if interval is None else f"[{show(interval[0])}, {show(interval[1])}]"


def marked(text: str, figures: Mapping[str, Any]) -> str:
    """`text`, a number, with LIMITED where it comes of a part of the questions only."""
    return f"{text} {LIMITED}" if figures["limited"] else text


def counted(figures: Mapping[str, Any]) -> str:
    """Questions asked, `1,000`, or `20 of 1,000` where these are not all."""
    n, official = figures["n"], figures["official_n"]
    return f"{n:,}" if n == official else f"{n:,} of {official:,}"


_NO_SETTINGS = ("files", "n", "official_n", "requests", "trouble")  # stamps of files, and what is said elsewhere


def settings_of(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the figures of a benchmark were made with, as (name, value): its origin's settings in their order, nested
    names joined by spaces, and the judge."""
    found: list[tuple[str, str]] = []

    def enter(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if key not in _NO_SETTINGS:
                    enter(f"{name} {key}".strip(), inner)
        elif value is not None:
            found.append(
                (name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
            )

    enter("", figures["origin"])
    enter("judge", (figures["columns"].get("judge") or {}).get("by", "none, by rules alone"))
    return found
