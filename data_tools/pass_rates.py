"""Pass rates: how hard a question is for a model, as the share of its responses to an RL row that are right.

`avar difficulty` measures them, `avar prepare` chooses training rows by them, `avar inspect` shows them. In a row,
`extra_info.pass_rate` is the share, null where no response could be decided, and `extra_info.pass_samples` the number
of responses that it is a share of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

NEVER, ALWAYS, UNKNOWN = "0: never right", "1: always right", "not measured"
BETWEEN = ("under 0.25", "0.25 to under 0.5", "0.5 to under 0.75", "0.75 to under 1")
BAR = 40  # characters of the longest bar


def row_pass_rate(extra: Mapping[str, Any] | None) -> float | None:
    """The pass rate of a row by its `extra_info`, from 0 to 1; None where it was not measured.

    Raises:
        ValueError: `pass_rate` is no such number.
    """
    found = (extra or {}).get("pass_rate")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
        raise ValueError(f"extra_info.pass_rate is {found!r}; it must be a number from 0 to 1")
    return float(found)


def bucket(rate: float | None) -> str:
    """The line of the histogram in which a pass rate is counted."""
    if rate is None:
        return UNKNOWN
    if rate in (0, 1):
        return ALWAYS if rate else NEVER
    return BETWEEN[int(4 * rate)]


def histogram(rates: Iterable[float | None]) -> Table:
    """Pass rates as a table with bars. What was not measured has a line only where there is any."""
    from avar_rl.runtime.tables import table

    counts = Counter(map(bucket, rates))
    total = sum(counts.values())
    found = table(("pass rate", "rows", "share", ""), text=("pass rate", ""))
    for line in (NEVER, *BETWEEN, ALWAYS, *((UNKNOWN,) if counts[UNKNOWN] else ())):
        bar = "█" * round(BAR * counts[line] / max(counts.values()))
        found.add_row(line, str(counts[line]), f"{counts[line] / total:.1%}", bar)
    return found
