"""The results of the check for people: a table on the console, and one in Markdown for docs/gpu/."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.gpu_check.results import DONE, MISSED, NOT_APPLICABLE

COLUMNS = ("part", "goal", "target", "measured", "met")


def line(part: dict[str, Any]) -> str:
    """How one part ended, in a line; with the last line of its error."""
    missed = sum(goal["met"] == MISSED for goal in part["goals"])
    text = f"  {part['status']} in {part.get('seconds', 0):g} s, {len(part['goals'])} goals, {missed} missed"
    error = part.get("error", "").strip().splitlines()
    return text if part["status"] == DONE or not error else f"{text}: {error[-1]}"


def show(results: dict[str, Any]) -> None:
    """Prints the goals of all parts."""
    table = Table(*COLUMNS, title=_card(results))
    for row in _rows(results):
        style = {MISSED: "bold red", NOT_APPLICABLE: "dim"}.get(row[-1])
        table.add_row(*row, style=style)
    Console().print(table)


def markdown(results: dict[str, Any]) -> str:
    """The same in Markdown, and which commits gave it."""
    lines = [f"{_card(results)}.", "", _markdown_row(COLUMNS), _markdown_row(["---"] * len(COLUMNS))]
    lines += [_markdown_row(row) for row in _rows(results)]
    commits = sorted({part["commit"] for part in results["parts"].values()})
    begun = sorted(part["begun"] for part in results["parts"].values())
    return "\n".join([*lines, "", f"Commit {', '.join(commits)}; begun {begun[0]}." if begun else "No part has run."])


def _markdown_row(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _card(results: dict[str, Any]) -> str:
    """Where the parts ran, by the versions that the first one found."""
    versions = results["parts"].get("1", {}).get("findings", {}).get("versions", {})
    small = any(part["miniature"] for part in results["parts"].values())
    if small:
        return "Miniature on a CPU: its times and memory say nothing about a GPU"
    if not versions:
        return "GPU check"
    names = (f"{name} {versions[name]}" for name in ("torch", "cuda", "cudnn", "triton", "verl") if name in versions)
    return f"{versions.get('card')}, driver {versions.get('driver')}, {', '.join(names)}"


def _rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for number, part in results["parts"].items():
        rows += [(number, g["goal"], g["target"], _shown(g["measured"]), g["met"]) for g in part["goals"]]
        if part["status"] != DONE:
            rows.append((number, f"{part['title']}: all of it", DONE, part["status"], MISSED))
    return rows


def _shown(measured: Any) -> str:
    if measured is None:
        return "nothing"
    return f"{measured:.4g}" if isinstance(measured, float) else str(measured)
