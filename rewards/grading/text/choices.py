"""Answers to multiple choice: the letter of `B`, `(B)`, `B.`, `Option B`, `B. 12`; letters of several options."""

import re

LETTERS = "ABCDEFGHIJ"
_LEAD = r"(?i:(?:the\s+)?(?:correct\s+|right\s+|final\s+)?(?:option|choice|answer)s?\s*(?:is|are|:)?\s*)?"
_SINGLE = re.compile(rf"{_LEAD}[(\[]?\s*([A-Ja-j])\s*[)\]]?\s*[.:,;]?", re.IGNORECASE)
_BRACKETED = r"\(\s*([A-Ja-j])\s*\)\s*[.:]?\s*|\[([A-J])\]\s*|([A-Ja-j])\)\s*"
_DASH = r"\s+[-–—]\s+(?=[a-z][a-z])"
_BEFORE_GLOSS = r"\s+(?=\([^()]*[a-z]{2}[^()]*\)$)"  # B (the red one)
_WITH_TEXT = re.compile(
    rf"{_LEAD}(?:{_BRACKETED}|([A-J])(?:\.\s*|:\s+|{_DASH}|{_BEFORE_GLOSS}))(\S.*)",
    re.DOTALL,
)
_MANY = re.compile(r"\(?[A-J]\)?(?:\s*(?:,|;|&|/|\s)?\s*(?:and\s+)?\(?[A-J]\)?){1,9}")
_MARKED = r"\(([A-J])\)|\*\*([A-J])\*\*"
_VERB = r"\s(?:is|was|because|since|as|it|for|and)\b"
_ENDED = rf"([A-HJ])(?=\s*(?:[).,:;!]|不|$|{_VERB}))"  # I is a pronoun
_IN_PROSE = re.compile(rf"(?<![A-Za-z0-9\\'’])(?:{_MARKED}|{_ENDED})(?![A-Za-z0-9=+*/^-])")
_NOT = "not|n't|不是|rather than|isn't|eliminate|exclude|instead of|over"
_NEGATED = re.compile(rf"(?:{_NOT})\s*(?:be\s+|option\s+|choice\s+)?[(*]*$", re.IGNORECASE)


def split_choice(text: str) -> tuple[str | None, str]:
    """The letter at the head, in upper case, and the text after it: `B. red` → ("B", "red"); (None, text): none."""
    if match := _SINGLE.fullmatch(text):
        return match.group(1).upper(), ""
    if match := _WITH_TEXT.fullmatch(text):
        letter = next(group for group in match.groups()[:4] if group)
        return letter.upper(), match.group(5).strip()
    return None, text


def many(text: str) -> frozenset[str] | None:
    """The letters of `ACD`, `A, C and D`, `(A)(C)`; None: something else, or a letter twice."""
    if not _MANY.fullmatch(text):
        return None
    letters = re.findall("[A-J]", text)
    return frozenset(letters) if len(set(letters)) == len(letters) > 1 else None


def in_prose(text: str, last: bool) -> str | None:
    """The first (or last) letter that stands as a choice in a sentence and is not negated (`it can't be A`).

    None: there is no such letter, or a short text leaves it open between two.
    """
    found = [
        next(group for group in match.groups() if group)
        for match in _IN_PROSE.finditer(text)
        if not _NEGATED.search(text[: match.start()])
    ]
    if (
        re.search(r"(?<![A-Za-z])[A-J]\)?\s*(?:,?\s*(?:or|and)|/|,)\s*\(?[A-J](?![A-Za-z])", text)
        and len(text.split()) < 6
    ):
        return None  # "A or B" picks none
    if not found:
        return None
    return found[-1] if last else found[0]
