"""The check's file of results: what each part found, and which goals it met. Every finding is on disk at once."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MET, MISSED, NOT_APPLICABLE = "yes", "no", "not applicable"
DONE, RUNNING, FAILED, TIMED_OUT = "done", "running", "failed", "timed out"


@dataclass(frozen=True)
class Setting:
    """What a part runs with.

    device: "cuda", or "cpu" for the miniature, in which figures of time and memory mean nothing.
    work: a folder that all parts of one run share, removed at its end.
    """

    device: str
    work: Path

    @property
    def miniature(self) -> bool:
        """Whether everything is small and on the CPU."""
        return self.device == "cpu"


class PartFindings:
    """One part's share of the file. Only one process writes at a time: the part that runs."""

    def __init__(self, path: Path, part: str) -> None:
        self._path, self._part = path, part

    def note(self, name: str, value: Any) -> None:
        """Keeps a fact, of what JSON can hold."""
        self._change(lambda mine: mine["findings"].update({name: value}))

    def at_most(self, goal: str, limit: float, measured: float | None, applies: bool = True) -> None:
        """A goal met where `measured` (None: there was nothing to measure) is no more than `limit`."""
        shown = None if measured is None else float(f"{measured:.6g}")
        met = NOT_APPLICABLE
        if applies and measured is not None:
            met = MET if measured <= limit else MISSED  # NaN is missed
        self._goal(goal, f"≤ {limit:g}", shown, met)

    def holds(self, goal: str, truth: bool, applies: bool = True) -> None:
        """A goal that is a fact."""
        self._goal(goal, "yes", "yes" if truth else "no", (MET if truth else MISSED) if applies else NOT_APPLICABLE)

    def status(self, status: str, **more: Any) -> None:
        """How the part stands, with `seconds` or `error` beside it."""
        self._change(lambda mine: mine.update(status=status, **more))

    def _goal(self, goal: str, target: str, measured: Any, met: str) -> None:
        line = {"goal": goal, "target": target, "measured": measured, "met": met}
        self._change(lambda mine: mine["goals"].append(line))

    def _change(self, change) -> None:
        results = read(self._path)
        change(results["parts"][self._part])
        write(self._path, results)


def empty() -> dict[str, Any]:
    """Results without any part."""
    return {"check": "avar_rl gpu_check", "parts": {}}


def begin(results: dict[str, Any], part: str, **about: Any) -> None:
    """Enters a part as running, in place of what was found of it before."""
    results["parts"][part] = about | {"status": RUNNING, "goals": [], "findings": {}}
    results["parts"] = dict(sorted(results["parts"].items()))


def read(path: Path) -> dict[str, Any]:
    """The results in a file. ValueError: it is none of ours, or none at all."""
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as results of the check: {error}") from error
    if not isinstance(results, dict) or not isinstance(results.get("parts"), dict):
        raise ValueError(f"{path} holds no results of the check (no parts); python -m benchmarks.gpu_check writes them")
    return results


def write(path: Path, results: dict[str, Any]) -> None:
    """Replaces the file in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    partial.replace(path)


def complete(results: dict[str, Any]) -> bool:
    """Whether every part in the file is done and no goal was missed."""
    parts = results["parts"].values()
    return all(p["status"] == DONE and all(goal["met"] != MISSED for goal in p["goals"]) for p in parts)
