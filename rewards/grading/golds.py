"""Gold answers: how another text than its own can match one."""

import re

from rewards.grading.compare.reshape import named
from rewards.grading.compare.scalars import computed
from rewards.grading.grader import check_gold
from rewards.grading.quantity import quantity
from rewards.grading.text import choices, words
from rewards.grading.text.normalise import normalise

MAX_WORDS = 12  # of a gold that a response could repeat word by word


def gold_tier(gold: str, kind: str | None = None) -> str:
    """How a gold answer can be matched by another text than its own, to tell the golds of a data set that cannot.

    One of: "choice", "yes or no", "number", "maths", "words" (short text, without case, articles and plural), "text
    only" (nothing but the same text or the same words: a formula that cannot be read, or a long sentence).

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
    prose = words.is_words(text) and (found is None or not re.search(r"[0-9+*/^=(\\]", text))
    if kind == "text" or (kind != "maths" and prose):
        return "words" if len(text.split()) <= MAX_WORDS else "text only"
    if found is None:
        return "text only"
    return "number" if computed(named(found.tree).value) is not None else "maths"
