"""What an official rule reads in a response, and the part of a model's turn that it is shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """`answer`: what the rule took for the answer, None where nothing parsed; `right`: whether it is the gold."""

    answer: str | None
    right: bool

    @property
    def parsed(self) -> bool:
        """Whether the rule found an answer at all."""
        return self.answer is not None


UNPARSED = Reading(None, False)


def final_text(turn: str) -> str | None:
    """The part of a model's turn that states its answer, stripped; None where a thought is not closed.

    That is the text after the last `</think>`, and of it the inside of the last `<answer>…</answer>`, where these
    stand: the official rules are older than such marks. Nothing else is changed.

    Args:
        turn: the whole turn of the model, what it was made to begin with (its prefill) included.
    """
    text = turn.rpartition("</think>")[2]
    if "<think>" in text:
        return None
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return (text if start < 0 else text[start + len("<answer>") : end]).strip()
