"""Answers in words: yes and no, numbers spelled out, prose told from mathematics, lists of items."""

import re

from rewards.grading.text import chinese

_YES, _NO = frozenset({"yes", "y", "true"}), frozenset({"no", "n", "false"})
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
).split()
_TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
_MATHEMATICAL = frozenset(
    "pi sqrt sin cos tan cot sec csc ln log exp inf infinity arcsin arccos arctan abs max min gcd lcm mod".split()
)


def plain(text: str) -> str:
    """The text in lower case, without punctuation that separates nothing."""
    text = re.sub(r"[\"“”`*_]|(?<![0-9])[.,;:!?]|[.,;:!?](?![0-9])", " ", text.casefold())
    text = re.sub(r"(?<=[a-z])[-–/](?=[a-z])", " ", text)
    return " ".join(text.split())


def yes_or_no(text: str) -> bool | None:
    """True for the yes of `Yes`, `yes, because …`, `True.`, False for a no; None: the text says neither or both."""
    if (said := chinese.yes_or_no(text)) is not None:
        return said
    words = plain(re.sub(r"^\s*[A-Za-z ]{1,24}:(?=\s*\w)", "", text)).split()
    if not words or (len(words) > 1 and words[0] in ("y", "n")):
        return None
    if any(word in ("or", "and") for word in words):
        return None
    if words[0] in _YES:
        return True
    if words[0] not in _NO:
        return None
    # "no solution" is no no
    return False if len(words) == 1 or words[0] != "no" or re.match(r"\W*no\W*,", text.lower()) else None


def is_yes_or_no(text: str) -> bool:
    """Is the text nothing but a yes or a no?"""
    return plain(text) in _YES | _NO or chinese.is_yes_or_no(text)


def spelled_number(text: str) -> str | None:
    """`twenty-one` → `21`, up to ninety-nine; None: no number word."""
    words = plain(text).split()
    if len(words) == 1 and words[0] in _UNITS:
        return str(_UNITS.index(words[0]))
    if len(words) == 1 and words[0] in _TENS:
        return str(_TENS[words[0]])
    if len(words) == 2 and words[0] in _TENS and words[1] in _UNITS[1:10]:
        return str(_TENS[words[0]] + _UNITS.index(words[1]))
    return None


def is_words(text: str) -> bool:
    """Is the text prose: at least one word of three letters that mathematics does not use, and no LaTeX structure?"""
    words = [
        word
        for word in re.findall(r"(?<![\\A-Za-z])[^\W\d_]{3,}|[\u4e00-\u9fff]+", text)
        if word.lower() not in _MATHEMATICAL
    ]
    text = re.sub(r"^\\\{([^{}\\]*)\\\}$", r"\1", text)
    if words_equation(text):
        return True
    return bool(words) and not re.search(r"[=^{}\\<>]|[a-z]\(", text)


def words_equation(text: str) -> tuple[str, str] | None:
    """Both sides of an equation between words, such as `price = marginal cost`; None: it is none."""
    sides = [side.strip() for side in text.split("=")]
    if len(sides) != 2 or not all(
        re.fullmatch("[A-Za-z ]+", side) and re.search("[A-Za-z]{3}", side) for side in sides
    ):
        return None
    if all(word.lower() in _MATHEMATICAL or len(word) < 3 for word in re.findall("[A-Za-z]+", text)):
        return None
    return sides[0], sides[1]


def items(text: str) -> list[str]:
    """The members of `red, blue and green`, with or without braces."""
    inside = re.sub(r"^\\?\{(.*?)\\?\}$", r"\1", text)
    return [
        item.strip()
        for item in re.split(r"[,;]|\band\b|(?<=[\u4e00-\u9fff])[和与及](?=[\u4e00-\u9fff])", inside)
        if item.strip()
    ]
