"""The answer that a text marks as one: stands in for the language model that MathVista and MathVerse extract with.

It is what `rewards.grading.stated_answer` finds (a box, "final answer", "Answer:", "the answer is"; docs/grading.md),
else the whole text, where it is one line of at most MAX_WORDS words. Nothing else is an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from rewards.grading import stated_answer
from rewards.grading.text.choices import option_in, split_choice

MAX_WORDS = 12  # of a line that is an answer as a whole
MAX_MARKED = 200  # characters; what is longer is no answer
_LABEL = re.compile(r"\(?([A-Z])[):.]")
_IN_BRACKETS = re.compile(r"\(([A-Z])\)")
_DECORATION = " \t\r\n*$\"'`"


def marked_answer(text: str) -> str | None:
    """The marked answer without its decoration (`$`, `*`, quotes, a closing full stop); None where there is none."""
    stated, _ = stated_answer(text)
    if stated is not None:
        return _bare(stated)
    return _bare(text) if _is_short_line(text) else None


def last_line(text: str) -> str:
    """The last line that is not empty, without decoration; "" where it has more than MAX_WORDS words."""
    line = text.rstrip()[-2 * MAX_MARKED :].rpartition("\n")[2]
    return (_bare(line) or "") if _is_short_line(line) else ""


def marked_choice(text: str, options: Sequence[str]) -> str | None:
    """The letter of the option that the marked answer picks, or else, where nothing is marked, the last line, or the
    head of the first line; else the marked answer as it is; None where nothing is marked and no letter picked."""
    if (marked := marked_answer(text)) is not None:
        return _picked(marked, options) or marked
    head, _ = split_choice(text.strip()[: 2 * MAX_MARKED].partition("\n")[0])
    return _picked(last_line(text), options) or (head if head in list(ascii_uppercase[: len(options)]) else None)


def _picked(text: str, options: Sequence[str]) -> str | None:
    """The letter of one of the options that a short text picks; None: none, or several.

    It picks one by its letter at the head (`B`, `(B) red`, `B. red`), by one letter in brackets, or by saying the text
    of one option.
    """
    known = ascii_uppercase[: len(options)]
    letter, _ = split_choice(text)
    if letter is None and (label := _LABEL.match(text)):
        letter = label[1]
    bracketed = set(_IN_BRACKETS.findall(text))
    if letter is None and len(bracketed) == 1:
        letter = bracketed.pop()
    if letter is None and (said := option_in(text, options)) is not None:
        letter = known[[option.strip() for option in options].index(said)]
    return letter if letter is not None and letter in known else None


def _is_short_line(text: str) -> bool:
    return len(text) <= 2 * MAX_MARKED and "\n" not in text.strip() and len(text.split()) <= MAX_WORDS


def _bare(text: str) -> str | None:
    """The text without decoration; None where nothing is left, or more than MAX_MARKED characters."""
    text = text.strip(_DECORATION).removesuffix(".").strip(_DECORATION)
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(opening) and text.endswith(closing):
            text = text[2:-2].strip()
    return text if 0 < len(text) <= MAX_MARKED else None
