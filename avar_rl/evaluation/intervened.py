"""What an intervention changes: accuracy with and without on the same questions, with a paired bootstrap interval."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from avar_rl.evaluation.result import Graded


def compare(without: Sequence[Graded], with_it: Sequence[Graded]) -> dict[str, Any]:
    """Of the greedy responses, and of the sampled ones (null where there are none).

    Each: accuracy `without` and `with`, their `difference` (with - without) and its 95 % `interval` over questions,
    null for fewer than two. The interval is paired: both responses to a question are drawn together.
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
    import torch

    from avar_rl.probe.report import bootstrap

    pairs = zip(without, with_it, strict=True)
    difference = torch.tensor([after - before for before, after in pairs], dtype=torch.float64)[:, None]
    interval = [bound.item() for bound in bootstrap(difference)] if len(difference) > 1 else None
    return {
        "without": fmean(without),
        "with": fmean(with_it),
        "difference": difference.mean().item(),
        "interval": interval,
        "n": len(difference),
    }


def print_comparison(name: str, intervention: str, found: dict[str, Any]) -> None:
    for kind in ("greedy", "sampled"):
        if (line := found[kind]) is None:
            continue
        bounds = line["interval"]
        interval = "no interval" if bounds is None else f"95 % interval {bounds[0]:+.1%} .. {bounds[1]:+.1%}, paired"
        print(
            f"{name}, {kind} accuracy on the same {line['n']} questions: {line['without']:.1%} without, "
            f"{line['with']:.1%} with {intervention}; difference {line['difference']:+.1%} ({interval})"
        )
