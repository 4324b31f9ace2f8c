"""Gold answers: what is wrong with one, what it is, and how another text than its own can match it."""

import re
from collections.abc import Sequence
from functools import lru_cache

from rewards.grading.compare.policy import DEFAULT
from rewards.grading.compare.reshape import named
from rewards.grading.compare.scalars import computed
from rewards.grading.quantity import Quantity, quantity
from rewards.grading.text import choices, words
from rewards.grading.text.normalise import normalise

MAX_SENTENCE = 12  # words: a response is looked at whole up to here, and no other text is like a longer gold
KINDS = ("choice", "text", "maths")


def check_gold(gold: str | Sequence[str], kind: str | None = None) -> None:
    """Checks that a gold answer can be compared with; returns nothing. `kind`: what it is, one of KINDS.

    Of several golds each is checked.

    Raises:
        ValueError: `gold` is no text or list of texts, empty, too long, or neither a choice, nor words, nor mathematics
            that can be read; or `kind` is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown kind of answer {kind!r}; known: {', '.join(KINDS)}")
    for one in several(gold):
        _check_one(one, kind)


def several(gold: str | Sequence[str]) -> tuple[str, ...]:
    """The golds of a question, each of which is right: those of a list or tuple; a text is the only one.

    Raises:
        ValueError: `gold` is no text and no list of texts, or an empty list.
    """
    listed: tuple[object, ...] = tuple(gold) if isinstance(gold, (list, tuple)) else (gold,)
    golds = tuple(one for one in listed if isinstance(one, str))
    if not golds or len(golds) < len(listed):
        raise ValueError(f"the gold answer {gold!r:.300} is neither a text nor a list of one or more texts")
    return golds


@lru_cache(maxsize=65536)
def _check_one(gold: str, kind: str | None) -> None:
    if not gold.strip() or len(gold) > DEFAULT.max_length:
        shown = repr(gold) if len(gold) < 300 else repr(gold[:300]) + "..."
        raise ValueError(f"the gold answer {shown} is empty or over {DEFAULT.max_length} characters long")
    text = normalise(gold)
    if not re.search(r"[^\W_]|∞|\\(?:infty|emptyset|varnothing|\{ *\\\})", text):
        raise ValueError(f"the gold answer {gold!r} has no letter and no digit")
    if choices.split_choice(text)[0] or words.is_yes_or_no(text) or quantity(text) is not None:
        return
    if kind == "maths" or not _readable(text):
        raise ValueError(f"the gold answer {gold!r} is neither a choice, nor words, nor mathematics that can be read")


def gold_tier(gold: str, kind: str | None = None) -> str:
    """How a gold answer can be matched by another text than its own, to tell the golds of a data set that cannot.

    One of: "choice" (letters of options), "yes or no", "number" (with a unit or without), "maths" (any other formula),
    "words" (short text, without case, articles and plural), "text only" (nothing but the same text or the same words:
    a formula that cannot be read, or a sentence of more than 12 words).

    Raises:
        ValueError: as `check_gold`.
    """
    check_gold(gold, kind)
    text = normalise(gold)
    if kind in (None, "choice") and (choices.split_choice(text)[0] or choices.many(text)):
        return "choice"
    if kind != "maths" and words.is_yes_or_no(text):
        return "yes or no"
    found = quantity(text)
    if kind != "maths" and is_prose(text, found, kind):
        return "words" if len(text.split()) <= MAX_SENTENCE else "text only"
    if found is None:
        return "text only"
    return "number" if computed(named(found.tree).value) is not None else "maths"


def is_prose(text: str, found: Quantity | None, kind: str | None) -> bool:
    """Is a normalised gold compared word by word, and not as the mathematics `found` in it?"""
    return kind == "text" or (words.is_words(text) and (found is None or not re.search(r"[0-9+*/^=(\\]", text)))


def _readable(text: str) -> bool:
    """Is the text words, with formulas among them, whose brackets balance, and no program?"""
    depth = 0
    for mark in re.findall(r"[{}()\[\]]", text):
        depth += 1 if mark in "{([" else -1
    code = re.search(r"__|\bimport\b|\blambda\b|;\s*\n|\beval\b|\bexec\b", text)
    return bool(re.search(r"[^\W\d_]{2,}|[\u4e00-\u9fff]", text)) and depth == 0 and not code
