"""The console's tables of responses that were tried on rewards: numbers always whole, text cut to the width."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.tables import console, cut, printable, shortened, table

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

SHOWN = 60  # characters of a response's end
# Columns of the console: what text gets at least before a table is cut in two, and what frames a cell.
ROW_WIDTH, GOLD_WIDTH, END_WIDTH, NAME_WIDTH, BORDER = 10, 5, 12, 24, 3


@dataclass(frozen=True)
class Tried:
    """One response with its rewards.

    raw: values by the rewards' names; None stands for "not applicable".
    error: what the reward that failed said, with its traceback (all of `raw` is None then); "" where none failed.
    """

    row_id: str
    gold: str
    response: str
    raw: dict[str, float | None]
    error: str


def show(tried: list[Tried], limit: int | None) -> None:
    """Prints the responses and a summary, in as many tables as the width asks for; the first failure to stderr.

    Args:
        tried: one or more responses, all with the same rewards.
        limit: how many rows a table may have, the first and the last ones; None: all.
    """
    out = console()
    names = list(tried[0].raw)
    values = {name: [_value(one, name) for one in tried] for name in names}
    for part in _parts(values, out.width - ROW_WIDTH - GOLD_WIDTH - END_WIDTH - 3 * BORDER):
        out.print(_listing(tried, part, limit))
    if limit is not None and limit < len(tried):
        print(f"{limit} of {len(tried)} responses, {len(tried) - limit} more between; --rows 0: all")
    figures = _figures(tried, names)
    for part in _parts(figures, out.width - min(max(map(len, names)), NAME_WIDTH) - BORDER):
        out.print(_summary(names, {heading: figures[heading] for heading in part}))
    failed = [one for one in tried if one.error]
    if failed:
        print(f"{len(failed)} of {len(tried)} responses failed; the first:\n{failed[0].error}", file=sys.stderr)


def _parts(columns: dict[str, list[str]], room: int) -> Iterator[list[str]]:
    """The headings of `columns`, cut into runs that each fit into so much room side by side."""
    part: list[str] = []
    used = 1
    for heading, cells in columns.items():
        needed = BORDER + max(map(len, (heading, *cells)))
        if part and used + needed > room:
            yield part
            part, used = [], 1
        part.append(heading)
        used += needed
    yield part


def _listing(tried: list[Tried], names: list[str], limit: int | None) -> Table:
    found = table(["row", "gold", *names, "response"], text=("row", "gold", "response"))
    first, last, hidden = shortened(tried, limit)
    for one in first:
        found.add_row(*_cells(one, names))
    if hidden:
        found.add_row(cut("…"), cut("…"), *("…" for _ in names), cut(f"… {hidden} more …"))
    for one in last:
        found.add_row(*_cells(one, names))
    return found


def _cells(one: Tried, names: list[str]) -> list[Any]:
    return [
        cut(one.row_id),
        cut(one.gold),
        *(_value(one, name) for name in names),
        _Ending(_end(printable(one.response))),
    ]


def _figures(tried: list[Tried], names: list[str]) -> dict[str, list[str]]:
    """The columns of the summary, a cell for each reward; responses on which a reward failed are left out."""
    columns: dict[str, list[str]] = {heading: [] for heading in ("n", "mean", "std", "min", "max", "n/a")}
    scored = [one.raw for one in tried if not one.error]
    for name in names:
        values = [value for raw in scored if (value := raw[name]) is not None]
        figures = [statistics.fmean(values), statistics.pstdev(values), min(values), max(values)] if values else []
        cells = [str(len(values)), *(map(_number, figures or [None] * 4)), str(len(scored) - len(values))]
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return columns


def _summary(names: list[str], figures: dict[str, list[str]]) -> Table:
    found = table(["reward", *figures], text=("reward",))
    for name, *cells in zip(names, *figures.values(), strict=True):
        found.add_row(cut(name), *cells)
    return found


def _value(one: Tried, name: str) -> str:
    return "failed" if one.error else _number(one.raw[name])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _end(text: str) -> str:
    return text if len(text) <= SHOWN else f"…{text[1 - SHOWN :]}"


@dataclass(frozen=True)
class _Ending:
    """A cell of a table that keeps the end of its text, where an answer stands, if the column is too narrow."""

    text: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.cells import cell_len
        from rich.measure import Measurement

        return Measurement(1, max(1, cell_len(self.text)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.cells import cell_len
        from rich.text import Text

        end = self.text
        while end and cell_len(end) + (end != self.text) > options.max_width:
            end = end[1:]
        yield Text(end if end == self.text else f"…{end}", no_wrap=True)
