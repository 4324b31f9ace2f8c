"""Golds that the grader can score, but that only their own text can match: what `validate` and `inspect` count."""

from __future__ import annotations

from collections.abc import Sequence

MAX_EXAMPLES = 3


def is_text_only(gold: str | None) -> bool:
    """Whether the grader can score a gold, but finds no other text equal to it than its own."""
    from rewards.grading.golds import gold_tier

    try:
        return bool(gold) and gold_tier(gold) == "text only"
    except ValueError:
        return False  # a fault of its own


def text_only_line(found: Sequence[tuple[str, str]], rows: int) -> str:
    """A line of text about golds, (id of the row, gold), that only their own text can match."""
    shown = ", ".join(f"{gold[:40]!r} (id {id_})" for id_, gold in found[:MAX_EXAMPLES])
    return f"{len(found)} of {rows} golds ({len(found) / rows:.1%}) match only their own text, such as {shown}"
