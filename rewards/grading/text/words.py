"""Answers in words: yes and no, numbers spelled out, short text without case, articles, punctuation and plural."""

import re

from rewards.grading.policy import Policy

_YES, _NO = frozenset({"yes", "y", "true"}), frozenset({"no", "n", "false"})
_ARTICLES = frozenset({"a", "an", "the"})
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
).split()
_TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
_MATHEMATICAL = frozenset(
    "pi sqrt sin cos tan cot sec csc ln log exp inf infinity arcsin arccos arctan abs max min gcd lcm".split()
)
_FILLERS = re.compile(r"^(?:it is|it's|they are|there (?:is|are)|this is|i think|we get|i believe)\s+", re.IGNORECASE)


def plain(text: str) -> str:
    """Lower case, without punctuation that separates nothing."""
    text = re.sub(r"[\"“”`*_]|(?<![0-9])[.,;:!?]|[.,;:!?](?![0-9])", " ", text.casefold())
    text = re.sub(r"(?<=[a-z])[-–/](?=[a-z])", " ", text)
    return " ".join(text.split())


def truth(text: str) -> bool | None:
    """The yes or no of `Yes`, `yes, because …`, `True.`; None: neither."""
    words = plain(re.sub(r"^\s*[A-Za-z ]{1,24}:(?=\s*\w)", "", text)).split()
    if not words or (len(words) > 1 and words[0] in ("y", "n")):
        return None
    if any(word in ("or", "and") for word in words):
        return None
    if words[0] in _YES:
        return True
    return (
        False
        if words[0] in _NO and (len(words) == 1 or re.match(r"\W*no\W*,", text.lower()) or words[0] != "no")
        else None
    )


def is_truth(text: str) -> bool:
    return plain(text) in _YES | _NO


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
    """Prose: at least one word of three letters that mathematics does not use, and no LaTeX structure."""
    words = [word for word in re.findall(r"(?<![\\A-Za-z])[^\W\d_]{3,}", text) if word.lower() not in _MATHEMATICAL]
    text = re.sub(r"^\\\{([^{}\\]*)\\\}$", r"\1", text)
    return bool(words) and not re.search(r"[=^{}\\<>]|[a-z]\(", text)


def items(text: str) -> list[str]:
    """The members of `red, blue and green`, with or without braces."""
    inside = re.sub(r"^\\?\{(.*?)\\?\}$", r"\1", text)
    return [item.strip() for item in re.split(r"[,;]|\band\b", inside) if item.strip()]


def same_items(a: list[str], b: list[str], policy: Policy) -> bool:
    """In any order."""
    return sorted(_reduced(item, policy) for item in a) == sorted(_reduced(item, policy) for item in b)


def same_words(a: str, b: str, policy: Policy) -> bool:
    a, b = (_reduced(_FILLERS.sub("", text), policy) for text in (a, b))
    return bool(a) and a == b


def _reduced(text: str, policy: Policy) -> list[str]:
    words = [word.removesuffix("'s") for word in plain(text).split()]
    if policy.ignore_articles and len(words) > 1:
        words = [word for word in words if word not in _ARTICLES]
    if policy.number_words:
        words = [spelled_number(word) or word for word in words]
    return [_singular(word) for word in words] if policy.ignore_plural else words


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and re.search(r"(?:ch|sh|x|ss|z)es$", word):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
