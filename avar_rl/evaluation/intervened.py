"""What an intervention changes: accuracy with and without on the same questions, with a paired bootstrap interval."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from avar_rl.evaluation.result import Graded
from avar_rl.runtime import tables
from avar_rl.runtime.bootstrap import bootstrap


def compare(without: Sequence[Graded], with_it: Sequence[Graded]) -> dict[str, Any]:
    """Compares the accuracies of two settings on the same questions: `greedy`, and `sampled` (None without samples).

    Each holds the accuracies `without` and `with`, their `difference` (with - without) and its 95 % `interval` over
    questions, None for fewer than two. The interval is paired: both responses to a question are drawn together.
    """
    greedy = _compare(_by_question(without, False), _by_question(with_it, False))
    sampled = _by_question(without, True)
    return {
        "greedy": greedy,
        "sampled": _compare(sampled, _by_question(with_it, True)) if sampled else None,
    }


def _by_question(graded: Sequence[Graded], sampled: bool) -> list[float]:
    """Mean accuracy of every question, in order; `grade` writes a question's responses one after another."""
    found: list[list[float]] = []
    for g in graded:
        if g.sample is None:
            found.append([])
        if (g.sample is not None) == sampled:
            found[-1].append(g.accuracy)
    return [fmean(values) for values in found if values]


def _compare(without: Sequence[float], with_it: Sequence[float]) -> dict[str, Any]:
    import numpy as np

    difference = np.subtract(with_it, without)
    interval = [float(bound[0]) for bound in bootstrap(difference[:, None])] if len(difference) > 1 else None
    return {
        "without": fmean(without),
        "with": fmean(with_it),
        "difference": float(difference.mean()),
        "interval": interval,
        "n": len(difference),
    }


def print_comparison(results: Sequence[dict[str, Any]], intervention: str) -> None:
    """Prints the accuracies of every model without and with the intervention; `results` as in OUT/NAME.json."""
    table = tables.table(
        ("model", "responses", "without", "with", "difference", "95 % interval", "n"),
        text=("model",),
        title=f"accuracy without and with {intervention}, on the same questions (intervals are paired)",
    )
    for result in results:
        for kind in ("greedy", "sampled"):
            if (line := result["intervention"][kind]) is None:
                continue
            bounds = line["interval"]
            interval = "-" if bounds is None else f"{bounds[0]:+.1%} .. {bounds[1]:+.1%}"
            shares = f"{line['without']:.1%}", f"{line['with']:.1%}", f"{line['difference']:+.1%}"
            table.add_row(tables.cut(result["name"]), kind, *shares, interval, str(line["n"]))
    tables.console().print(table)
