r"""Answers of several numbers that are one: 2 h 30 min, 3 out of 4, 2 thirds, 5 minus 2; names such as `m\angle 2 =`.

Each is rewritten to the formula that it means, for the parser to read. What no rewriting covers stays as it is, and is
then no mathematics: no part of it is ever taken for the whole.
"""

import re
from fractions import Fraction

from rewards.grading.text import units
from rewards.grading.text.words import spelled_number

_PLAIN_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_DENOMINATORS = {
    **dict.fromkeys(("half", "halves"), 2),
    **dict.fromkeys(("third", "thirds"), 3),
    **dict.fromkeys(("fourth", "fourths", "quarter", "quarters"), 4),
    **{
        form: value
        for value, name in enumerate("fifth sixth seventh eighth ninth tenth eleventh twelfth".split(), 5)
        for form in (name, name + "s")
    },
    **dict.fromkeys(("hundredth", "hundredths"), 100),
    **dict.fromkeys(("thousandth", "thousandths"), 1000),
}
FRACTION_WORDS = frozenset(_DENOMINATORS)
SCALES = frozenset("hundred hundreds thousand thousands million millions billion dozen twice double triple".split())
_COUNT = r"[0-9]{1,9}|[a-z]+(?:-[a-z]+)?"
_FRACTION = re.compile(
    rf"({_COUNT})[ -](?:of )?(?:a )?({'|'.join(FRACTION_WORDS)})(?![A-Za-z-])((?: [A-Za-z]+)*)", re.IGNORECASE
)
_AND_A_HALF = re.compile(rf"({_COUNT}) and (?:a|one) (half|third|quarter)((?: [A-Za-z]+)*)", re.IGNORECASE)
_OUT_OF = re.compile(r"([0-9]{1,9})(?: out of(?: every)?((?: [0-9]{1,9}))((?: [a-z]+)*)| (?:in|of)( [0-9]{1,9})())")
_SPOKEN = {"plus": "+", "minus": "-", "times": r"\times", "multiplied by": r"\times", "divided by": "/", "over": "/"}
_OPERATION = re.compile(
    r"(?<=[0-9a-z)}]) (plus|minus|times|multiplied by|divided by|over) (?=-?(?:[0-9(\\]|[a-z](?![a-z])))"
)

_UNIT = r"[A-Za-z\u4e00-\u9fff]+"
_LINK = r"(?:\s*,?\s*(?:and\s+)?)"
_MIXED = rf"({_PLAIN_NUMBER})\s*({_UNIT}\.?){_LINK}({_PLAIN_NUMBER}(?: [0-9]+/[0-9]+)?)\s*({_UNIT})?"
_MIXED_WITHIN = re.compile(rf"(?<![0-9.,A-Za-z]){_MIXED}(?:{_LINK}({_PLAIN_NUMBER})\s*({_UNIT}))?")
_FEET_AND_INCHES = re.compile(r"([0-9]{1,3})\s*'\s*([0-9]{1,2}(?:\.[0-9]+)?)\s*(?:\"|'')")
_OUNCES = {"oz": Fraction(1, 16), "ounce": Fraction(1, 16), "ounces": Fraction(1, 16)}  # of a pound, after pounds

_ORDINARY = r"(?:[^=<>+*/^|]|\\ne)"
_LABEL_IN_WORDS = re.compile(rf"(?=[A-Za-z])(?=[^=]*(?<![A-Za-z\\])[A-Za-z]{{3}}){_ORDINARY}*=")
DENIALS = frozenset(
    "not no never none nobody hardly neither nor without wrong incorrect false mistaken mistake error maybe"
    " perhaps possibly might could either or vs versus if unless otherwise except but however although though"
    " instead rather wait actually unknown unclear unsure uncertain guess guessing doubt impossible invalid"
    " undefined cannot whether unable".split()
)
_RESTRICTIONS = frozenset("least most below above".split())
_NO_COUNTS = FRACTION_WORDS | {"squared", "cubed", "factorial"}


_LISTED = re.compile(r"\s*[,;]\s*(?:(?:and|or)\b\s*)?|\s+(?:and|or)\s+")


def _with_one_unit(text: str) -> str:
    """`5 cm or 11 cm` with the unit that all of its numbers have at the end: `5, 11 cm`; any other text as it is."""
    parts = _LISTED.split(text)
    if not 2 <= len(parts) <= 12:
        return text
    split = [units.split_unit(part) for part in parts]
    first = split[0][1]
    alike = all(unit == first and scale == 1 and not re.search("[A-Za-z]{2}", rest) for rest, unit, scale in split)
    if first is None or not alike or not units.is_known(first.text):
        return text
    return f"{', '.join(rest for rest, _, _ in split)} {first.text}"


def rewritten(text: str) -> str:
    """The formula, with one unit, that a normalised answer of several numbers or words means; else `text` as it is."""
    if not re.search(r"[A-Za-z\"\u4e00-\u9fff]", text):
        return text
    text = re.sub(r"(?<=[0-9]) cup$", " cups", text)  # no union
    if match := _FEET_AND_INCHES.fullmatch(text):
        text = f"{match[1]} ft {match[2]} in"
    if match := _OUT_OF.fullmatch(text):
        return f"{match[1]}/{(match[2] or match[4]).strip()}{match[3] or ''}"
    if (match := _AND_A_HALF.fullmatch(text)) and (count := _count(match[1])):
        return f"{count * _DENOMINATORS[match[2].lower()] + 1}/{_DENOMINATORS[match[2].lower()]}{match[3]}"
    if (match := _FRACTION.fullmatch(text)) and (count := _count(match[1])):
        return f"{count}/{_DENOMINATORS[match[2].lower()]}{match[3]}"
    if (match := _MIXED_WITHIN.fullmatch(text)) and (one := _one_unit(match)):
        return one
    return _with_one_unit(_OPERATION.sub(lambda m: f" {_SPOKEN[m[1]]} ", text))


def _count(text: str) -> int | None:
    said = text if text.isdigit() else "1" if text.lower() in ("a", "an") else spelled_number(text)
    return int(said) if said else None


def mixed_at(text: str, position: int) -> str | None:
    """The mixed units, such as `2 h 30 min`, in which the number at `position` of a text stands; None: it is none."""
    for match in _MIXED_WITHIN.finditer(text):
        if match.start() <= position < match.end() and _one_unit(match):
            return match.group()
    return None


def _one_unit(match: re.Match) -> str | None:
    """`2 h 30 min` as `5/2 h`; None: the units measure different things, or a later one is not smaller."""
    groups = match.groups()
    first = _known(groups[1])
    if first is None:
        return None
    total, last = Fraction(groups[0]), Fraction(1)
    for value, name in ((groups[2], groups[3]), (groups[4], groups[5])):
        if value is None:
            continue
        whole, _, part = value.partition(" ")
        amount = Fraction(whole) + (Fraction(part) if part and not part.endswith("/0") else 0)
        if name is None:
            return None
        in_minutes = name == "m" and first.dimension == (("s", 1),)  # 1 h 15 m
        unit = _known("min" if in_minutes else name)
        pounds = groups[1] in ("lb", "lbs", "pound", "pounds") and name in _OUNCES
        if not pounds and (unit is None or unit.dimension != first.dimension):
            return None
        share = _OUNCES[name] if pounds or unit is None else unit.factor / first.factor
        if share >= last:
            return None
        total, last = total + amount * share, share
    return f"{total} {groups[1]}"


def _known(name: str) -> units.Unit | None:
    return units.read_unit(name.rstrip(".")) if units.is_known(name.rstrip(".")) else None


def without_words(text: str) -> str:
    """The value of `Area of triangle 2 = 15`: what follows a name in words. Any other text as it is."""
    match = _LABEL_IN_WORDS.match(text) if "=" in text else None
    name = match.group() if match else ""
    if match is None or says_more(name) or name[-2:-1] in ("!", ":") or re.search(r"\b(?:for|when|where)\b", name):
        return text
    return text[match.end() :].strip()


def is_no_count(words: str) -> bool:
    """Do the words after a number say more than what is counted: `wrong`, `maybe`, `at least`, `squared`?"""
    said = words.lower().split()
    return says_more(said[-1]) or words.lower() in _NO_COUNTS or not _RESTRICTIONS.isdisjoint(said)


def says_more(text: str) -> bool:
    """Does the text deny, doubt or restrict what it says: not, wrong, maybe, or, if, unless ...?"""
    words = {word.lower() for word in re.findall(r"(?<![\\A-Za-z])[A-Za-z]+(?:n't)?", text)}
    chinese = text.replace("不同", "")  # 15种不同的方法
    return not words.isdisjoint(DENIALS) or "n't" in text or any(sign in chinese for sign in "不非或?")


def is_several(text: str) -> bool:
    """Is the text numbers set apart by bars, `1 | 2 | 3`, which is no answer and no absolute value?"""
    return re.search(r"[0-9] \| -?[0-9]", text) is not None
