"""Tables for the console in which numbers are never lost: where a line is too narrow, text is cut, numbers are not."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

PIPE_COLUMNS = 120  # a log file or a pipe has no width of its own; rich would take 80


def console() -> Console:
    """Standard output as a rich console: as wide as the terminal or COLUMNS says, else 120 columns."""
    from rich.console import Console

    found = Console(soft_wrap=False)
    return found if found.is_terminal or "COLUMNS" in os.environ else Console(width=PIPE_COLUMNS)


def table(columns: Sequence[str], *, text: Collection[str] = (), title: str | None = None) -> Table:
    """An empty rich table. Columns named in `text` are aligned left and cut with an ellipsis where the line is too
    narrow; all others (numbers, short names) are aligned right and keep their full width.

    Add rows with `add_row`; put free text through `cut`, so that its brackets are no markup of rich's.
    """
    from rich.table import Column, Table

    kinds = [
        Column(name, overflow="ellipsis") if name in text else Column(name, justify="right", no_wrap=True)
        for name in columns
    ]
    return Table(*kinds, title=title)


def printable(text: str) -> str:
    """`text` on one line; what would steer a terminal or cannot be encoded becomes a replacement character."""
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in " ".join(text.split()))


def cut(value: Any) -> Text:
    """A cell of free text on one printable line; what does not fit is replaced by an ellipsis."""
    from rich.text import Text

    return Text(printable(str(value)), no_wrap=True, overflow="ellipsis")


def shortened(rows: Sequence[Any], limit: int | None) -> tuple[Sequence[Any], Sequence[Any], int]:
    """The first and last rows of a long listing, `limit` in all (None: every row), and how many lie between them."""
    if limit is None or len(rows) <= limit:
        return rows, (), 0
    head = limit - limit // 2
    return rows[:head], rows[len(rows) - limit // 2 :], len(rows) - limit


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], text: int = 2) -> str:
    """A table of Markdown; the first `text` columns are aligned left, the others right."""
    rule = ["---" if place < text else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
