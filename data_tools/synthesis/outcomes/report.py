"""The report: a funnel by stage and filter, by source, usage, lengths and anchors, as tables and as an HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avar_rl.runtime.files import write_whole
from data_tools.synthesis.calls.journal import Usage
from data_tools.synthesis.inputs.recipe import STAGES, Recipe
from data_tools.synthesis.outcomes.export import OUTCOMES, Tally
from data_tools.synthesis.outcomes.filters import NAMES

TEMPLATE = Path(__file__).parent / "report.html.jinja"
BINS = 16
MEANING = "meaning"  # a column of the page alone


@dataclass(frozen=True)
class Table:
    """Cells as readable text; columns named in `text` may be cut in a narrow console, all others never."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: tuple[str, ...] = ()


def tables(tally: Tally, usage: dict[str, Usage], requests: int, recipe: Recipe) -> list[Table]:
    """The tables of the report, some perhaps without rows.

    Args:
        usage: finished calls by stage (`Journal.usage`).
        requests: all requests of all runs, those of failed calls too (`Journal.requests`).
    """
    return [
        _funnel(tally),
        _filters(tally),
        _sources(tally),
        _failures(tally),
        _usage(usage, requests, recipe),
        _spread(tally),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _funnel(tally: Tally) -> Table:
    total = sum(tally.rows.values())
    steps = [("rows", total), *((f"got to {stage}", tally.reached[stage]) for stage in STAGES)]
    ends = {outcome: sum(n for (_, o), n in tally.rows.items() if o == outcome) for outcome in OUTCOMES}
    steps += [(name, ends[name]) for name in OUTCOMES]
    rows = tuple((name, str(n), _share(n, total)) for name, n in steps)
    return Table("Funnel", ("", "rows", "share"), rows, text=("",))


def _filters(tally: Tally) -> Table:
    rows = []
    for name, meaning in NAMES.items():
        counts = [tally.filters[stage, name] for stage in ("source", *STAGES)]
        if sum(counts):
            rows.append((name, *(str(n) for n in counts), _share(sum(counts), tally.candidates), meaning))
    head = ("filter", "no call", *STAGES, "of all", MEANING)
    return Table("Filters (reasonings, not rows)", head, tuple(rows), text=("filter",))


def _sources(tally: Tally) -> Table:
    sources = sorted({source for source, _ in tally.rows})
    rows = []
    for source in sources:
        counts = [tally.rows[source, outcome] for outcome in OUTCOMES]
        worst = Counter({name: n for (s, name), n in tally.by_source.items() if s == source}).most_common(3)
        often = ", ".join(f"{name} {n}" for name, n in worst)
        rows.append((source, str(sum(counts)), *map(str, counts), _share(counts[0], sum(counts)), often))
    head = ("source", "rows", *OUTCOMES, "yield", "top filters")
    return Table("By source", head, tuple(rows), text=("top filters",))


def _failures(tally: Tally) -> Table:
    rows = [(what, str(n)) for (outcome, what), n in tally.reasons.most_common() if outcome == "failed"]
    return Table("Failures (tried again by the next run)", ("error", "rows"), tuple(rows), text=("error",))


def _usage(usage: dict[str, Usage], requests: int, recipe: Recipe) -> Table:
    rows, total = [], 0.0
    for name in STAGES:
        if name not in usage:
            continue
        used, price = usage[name], recipe.stage(name).price
        cost = (used.prompt_tokens * price.prompt + used.completion_tokens * price.completion) / 1e6
        total += cost
        seconds = f"{used.seconds / used.calls:.2f}"
        counts = (str(used.calls), str(used.requests), f"{used.prompt_tokens:,}", f"{used.completion_tokens:,}")
        rows.append((f"{name}: {recipe.stage(name).model}", *counts, seconds, f"{cost:.2f}"))
    calls = sum(used.calls for used in usage.values())
    rows.append(("all", str(calls), str(requests), "", "", "", f"{total:.2f}"))
    head = ("stage", "calls", "requests", "tokens in", "tokens out", "s/call", "USD")  # all fits into 80 columns
    return Table("Usage (all: with the requests of failed calls)", head, tuple(rows), text=("stage",))


def _spread(tally: Tally) -> Table:
    rows = []
    for name, values in (("tokens of a response", tally.tokens), ("anchors of a response", tally.anchors)):
        if values:
            order = sorted(values)
            places = [order[min(len(order) - 1, len(order) * p // 100)] for p in (0, 10, 50, 90, 100)]
            rows.append((name, f"{sum(order) / len(order):.1f}", *map(str, places)))
    return Table("Exported responses", ("", "mean", "least", "10 %", "median", "90 %", "most"), tuple(rows), ("",))


def show(found: Sequence[Table]) -> None:
    """Prints the tables that have rows, without what the page alone explains."""
    from avar_rl.runtime.tables import console, cut
    from avar_rl.runtime.tables import table as empty

    out = console()
    for table in found:
        if table.rows:
            head = [name for name in table.head if name != MEANING]
            printed = empty(head, text=table.text, title=table.title)
            for row in table.rows:
                cells = zip(head, row, strict=False)  # MEANING is the last column
                printed.add_row(*(cut(cell) if name in table.text else cell for name, cell in cells))
            out.print(printed)


@dataclass(frozen=True)
class Bar:
    """A rectangle of a plot, its upper left corner at (`x`, `y`)."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Plot:
    """A histogram as rectangles in a box of 600 x 160."""

    title: str
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]


def histogram(title: str, values: Sequence[int]) -> Plot | None:
    """At most BINS bars of whole numbers; None without values."""
    if not values:
        return None
    low, step = min(values), max(1, -(-(max(values) - min(values) + 1) // BINS))
    counts = Counter((value - low) // step for value in values)
    bins = max(counts) + 1
    width, tallest = 600 / bins, max(counts.values())
    bars, ticks = [], []
    for place in range(bins):
        height = 140 * counts[place] / tallest
        first, last = low + place * step, low + (place + 1) * step - 1
        name = str(first) if step == 1 else f"{first} to {last}"
        bars.append(Bar(place * width + 1, 140 - height, width - 2, height, f"{name}: {counts[place]}"))
        ticks.append((place * width + width / 2, str(first)))
    return Plot(title, tuple(bars), tuple(ticks))


def write_page(path: Path, found: Sequence[Table], tally: Tally, stopped: str | None) -> None:
    """Writes the tables as an HTML page with plots, rejected texts and samples; it loads nothing from elsewhere.

    Args:
        stopped: why the run is not finished, None where it is.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    plots = [histogram("Tokens of a response", tally.tokens), histogram("Anchors of a response", tally.anchors)]
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        tables=[table for table in found if table.rows],
        plots=[plot for plot in plots if plot],
        examples={name: tally.examples[name] for name in NAMES if name in tally.examples},
        samples=tally.samples,
        meanings=NAMES,
        stopped=stopped,
    )
    write_whole(path, page)
