r"""What a text without a stated answer says last: a formula, a number with its unit, a number in words."""

import re

from rewards.grading.text import compound, units
from rewards.grading.text.words import spelled_number

SPAN = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<![\\$])\$((?:\\\$|[^$\n])+?)(?<!\\)\$", re.DOTALL)
# A number is never a part of a numeral: 1e999999999 is not 1.
_FRACTION = r"-?[0-9]*\\[dt]?frac\{[^{}]*\}\{[^{}]*\}"
_WHOLE = r"(?<![A-Za-z0-9_.,^{])-?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_PLACES = r"(?:\.[0-9]+|,[0-9]{1,2}(?![0-9,]))?(?:\.?[eE][-+]?[0-9]+)?"
_OVER = r"(?:\s*/\s*[0-9]+(?![0-9]|\.[0-9]))?"
_POWER = r"\^\s*\{?\s*-?[0-9]+\}?"
_TIMES_TEN = rf"(?:{_POWER}|\s*(?:\\times|\\cdot|[x×*])\s*10\s*{_POWER})?"
_POINT_FIRST = r"(?<![A-Za-z0-9_])-?\.[0-9]+(?:[eE][-+]?[0-9]+)?"
_CLOCK = r"(?<![0-9:.A-Za-z])[0-9]{1,4}(?::[0-9]{1,4}){1,2}(?![0-9:])(?:\s*[AaPp]\.?[Mm]\b\.?)?"
_IRRATIONAL = r"\s*(?:\\sqrt\s*(?:\{[^{}]*\}|\([^()]*\)|[0-9]+)|√\s*[0-9]+|(?:\\pi|π)(?![A-Za-z]))(?:\s*/\s*[0-9]+)?"
_SURD = rf"{_WHOLE}{_PLACES}{_IRRATIONAL}"  # 5√2, 12π
_NUMBER = re.compile(rf"{_CLOCK}|{_FRACTION}|{_SURD}|{_WHOLE}{_PLACES}{_OVER}{_TIMES_TEN}\s*%?|{_POINT_FIRST}")
# What makes one answer of two numbers: 3 or 4, 3 out of 4, x = 3 and x = -3
_JOINING = (
    r"out of|in|or(?: maybe| perhaps| possibly)?|vs\.?|versus|mod(?:ulo)?|(?:with )?(?:a )?remainder(?: of)?"
    "|R|maybe|perhaps|times|plus|minus|divided by|to"
)
_JOINED = re.compile(rf"(?:,?\s+(?:{_JOINING})|\s*\|)\s+(?:[a-z]\s*=\s*)?$")
_DENIED = re.compile(r"(?:\b(?:can)?not|\bnever|n['’]t)\s+(?:be\s+|equal\s+(?:to\s+)?|exactly\s+)?\Z")
_SAME_NAME = re.compile(r"\b([a-z])\s*=\s*-?[0-9./]+,?\s+and\s+\1\s*=\s*$")
_UNIT_POWER = r"(?:\^\{?[23]\}?|\s+(?:squared|cubed))?"
_UNIT = re.compile(
    rf"\s*((?:(?:square|sq|cubic|cu)\.?\s+)?([A-Za-zμΩ]+){_UNIT_POWER}(?:(?:\s*/\s*|\s+per\s+)([A-Za-z]+){_UNIT_POWER})?)(?![A-Za-z])"
)
_UNCLEAR_UNITS = frozenset("in a A at am pm C t l N K V W J".split())  # also words, or letters of anything else
_PLAIN_WORDS = re.compile(r"(?<![\\A-Za-z])(?!(?:or|and|pi|sqrt|cm|mm|km|ft|kg|am|pm)\b)[^\W\d_]{2,}")


_LEADING = (
    "(?:simplifies|reduces|comes|amounts|works out) to|is|are|equals|at|get|gets|have|obtain|gives?|yields?|therefore"
    "|hence|thus|so|then|equation|formula|function|becomes|by"
)
_UNIT_AFTER = re.compile(r"(?:(?<=[0-9)}])|(?<=\\pi))\s+(?:(?:square|cubic)\s+)?([A-Za-z]+)$")
_LEADS_IN = re.compile(rf"\b(?:{_LEADING})\b", re.IGNORECASE)


def _plain_clause(text: str) -> str | None:
    """`y = 3x - 2` of "The line is y = 3x - 2.": what a closing sentence says, where that is nothing but a formula."""
    sentence = re.split(r"\n|(?<![0-9])\.\s|\.\s+(?=[A-Z])", text.strip().rstrip("."))[-1]
    clauses = _LEADS_IN.split(sentence)
    said = clauses[-1].strip(" :*,")
    unit = _UNIT_AFTER.search(said)
    if len(clauses) > 1 and unit and units.is_known(unit[1]) and re.search(r"[0-9}] [+-] ", said):
        return None if _PLAIN_WORDS.search(said[: unit.start()]) or re.search("[$=]", said) else said
    plain = len(clauses) > 1 and re.search(r"[0-9]", said) and "$" not in said and not _PLAIN_WORDS.search(said)
    return said if plain else None


_DENIES = r"而不是|而非|并非|不是|(?:and )?not\b|rather than\b|instead of\b"
_BUT_NOT = rf"[,;，；]\s*(?:{_DENIES})|(?<!\s)(?:\s*而(?:不是|非|并非)|\s+(?:and not|rather than|instead of)\b)"
_CLAUSE = r"(?:[^.。,;，；(（\n]|[(（][^()（）\n]{0,80}[)）]|\.(?=[0-9])){1,120}+"
_DENIED_END = re.compile(rf"(?:{_BUT_NOT}){_CLAUSE}[.。]?\s*$", re.IGNORECASE)


def without_denied_end(text: str) -> str:
    """A text without what its last clause says that the answer is not: `12 cm, not 36 cm.` is 12 cm."""
    return _DENIED_END.sub("", text)


# The point of `3. So` ends a sentence, that of a label `B. So`, or of `2. So` at the start of a line, does not
_SENTENCE_ENDS = re.compile(r"(?<=[^0-9A-Z][.!?])\s+|(?<=[^\n][0-9][.!?])\s+(?=[A-Z])|\n")


def closing_sentence(text: str) -> str:
    """The last sentence of a text, without its full stop."""
    sentences = [part for part in _SENTENCE_ENDS.split(text.strip()) if part.strip()]
    return sentences[-1].strip() if sentences else ""


_SAYS = r"says?|reads?|shows?|spells?|displays?|states?|printed|written|labell?ed|is|写着|写有|标着|显示"
_QUOTED = re.compile(rf"(?:\b|(?<=[\u4e00-\u9fff]))(?:{_SAYS})[\s:]*\"([^\"]{{1,60}})\"")


def quoted(sentence: str) -> str | None:
    """What a sentence says that something says, `OPEN` of `The sign says "OPEN".`; None: nothing, or it denies it."""
    said = _QUOTED.search(sentence)
    if said is None or sentence.count('"') > 2:
        return None
    before = sentence[: said.start()]
    return None if compound.says_more(before) or re.search("[没未]", before) else said.group(1)


_SO = re.compile(r"(?:^|,\s+)(?:so|thus|hence|therefore|then|consequently)\b,?\s+(.*)", re.IGNORECASE | re.DOTALL)
_TRUTHS = {"true": "yes", "correct": "yes", "right": "yes", "false": "no", "incorrect": "no", "wrong": "no"}
_JUDGED = re.compile(
    rf"\b(?:it|this|that|statement|claim|assertion|conclusion|proposition|inequality|equation)\s+is\s+"
    rf"(not\s+)?(?:(?:therefore|thus|indeed|always|also|clearly)\s+)?({'|'.join(_TRUTHS)})\s*[.!]?$",
    re.IGNORECASE,
)


def concluded(text: str) -> str:
    """The yes or no in which a text ends, `So no, …` or `Hence the statement is not true.`; else the whole text."""
    sentence = closing_sentence(text)
    if match := _JUDGED.search(sentence):
        truth = _TRUTHS[match.group(2).lower()]
        return {"yes": "no", "no": "yes"}[truth] if match.group(1) else truth
    match = _SO.search(sentence)
    return match.group(1) if match else text.strip()


# $a_n = 3n - 1$ for every $n \ge 1$
_CONDITION = re.compile(r"(?<=\$),?\s+(?:(?:for|if)(?: all| every| each| any)?|where|when|with)\s+\$[^$\n]*+\$[.\s]*$")


def last_expression(text: str, *, formula_wanted: bool = False) -> str | None:
    """The last formula between dollar signs, or number, of a text without a stated answer; None: there is neither.

    With `formula_wanted`, a formula that stands in the prose of the closing sentence comes first.
    """
    if len(text) < 200 and not re.search(r"(?<![\\A-Za-z])[^\W\d_]{3,}|[\u4e00-\u9fff]", text):
        return text.strip()  # nothing but a formula
    text = _CONDITION.sub("", text)
    if formula_wanted and (said := _plain_clause(text)) is not None:
        return said
    found = [(m, next(g for g in m.groups() if g is not None)) for m in SPAN.finditer(text) if m.group().strip("$ ")]
    formula = (-1, None)
    for match, inside in reversed(found):
        if not _is_prose(inside):
            formula = match.end(), _with_neighbours(text, found, match, inside)
            break
    numbers = [(m.start(), m.start() + len(m.group().rstrip())) for m in _NUMBER.finditer(text)]
    numbers = [(start, end) for start, end in numbers if not _DENIED.search(text, max(0, start - 30), start)]
    if formula[1] and (not numbers or formula[0] >= numbers[-1][1]):
        return formula[1].strip()
    if (spelled := _spelled_at_end(text)) is not None:
        return spelled
    return _whole_number(text, numbers) if numbers else _last_spelled(text)


def _whole_number(text: str, numbers: list[tuple[int, int]]) -> str:
    """The last number with what belongs to it: its unit, or the numbers before it that make one answer with it."""
    start, end = numbers[-1]
    if (mixed := compound.mixed_at(text, start)) is not None:
        return mixed
    unit = _unit_at(text, end)
    for first, last in reversed(numbers[:-1]):
        between = text[last:start]
        same_unit = unit and re.fullmatch(rf"\s*{re.escape(unit)},?\s+(?:and|or)\s+", between)
        if not (same_unit or _JOINED.fullmatch(between) or _SAME_NAME.search(text[:start])):
            break
        if re.search(r"\bfrom\s+$", text[:first]):
            break
        start = first
    return f"{text[start:end].strip()} {unit}".strip()


def _unit_at(text: str, position: int) -> str:
    """The known unit that stands at `position` of a text, as it is written; "" where there is none."""
    unit = _UNIT.match(text, position)
    clear = unit and unit[2] not in _UNCLEAR_UNITS and units.is_known(unit[2])
    return unit[1] if unit and clear and (not unit[3] or units.is_known(unit[3])) else ""


_NUMBER_WORDS = re.compile(r"(?<![A-Za-z-])([A-Za-z]+(?:[ -](?:one|two|three|four|five|six|seven|eight|nine)\b)?)")
_ONE = re.compile(r"(?:\b(?:is|are|shows?|only|exactly|just|equals|see)\s+|:\s*|^\s*)$", re.IGNORECASE)
_OF_ONE = re.compile(r"\s+(?:of|can|that|which|who|another|more|way|side|hand)\b")


_FRACTION_WORDS = "|".join(sorted(compound.FRACTION_WORDS))
_COUNTS = (
    "is|are|was|were|has|have|had|takes?|took|needs?|costs?|equals|makes?|gives?|leaves?|contains?|holds?|shows?"
    "|lasts?|gets?|sees?|count|totals?|wins?|won|buys?|bought|eats?|ate"
)
_HALVES = r"(?: and (?:a|one) (?:half|third|quarter)| (?:" + _FRACTION_WORDS + "))?"
_SPELLED_END = re.compile(
    rf"\b(?:{_COUNTS})\s+(?:(?:about|exactly|only|just)\s+)?(?P<all>(?P<count>[a-z]+(?:-[a-z]+)?){_HALVES}"
    r"(?: (?!of\b|that\b|which\b|who\b|more\b|less\b)[a-z]{2,}){0,2})(?: who(?: [a-z]+){1,4})?\s*[.!]?\s*$",
    re.IGNORECASE,
)


def _spelled_at_end(text: str) -> str | None:
    """`two and a half hours` of "…, which takes two and a half hours.": a count in words with which a text ends."""
    match = _SPELLED_END.search(text, max(0, len(text) - 100))
    return match["all"] if match and spelled_number(match["count"]) is not None else None


def _last_spelled(text: str) -> str | None:
    """The last number in words, `seven` of "It shows seven triangles", with a scale or fraction after it."""
    for match in reversed(list(_NUMBER_WORDS.finditer(text))):
        word = match.group(1) if spelled_number(match.group(1)) else match.group(1).split(" ")[-1]
        if spelled_number(word) is None:
            continue
        before = text[: match.end() - len(word)]
        if word.lower() == "one" and (not _ONE.search(before) or _OF_ONE.match(text, match.end())):
            continue
        after = re.match(r"[ -]([A-Za-z]+)", text[match.end() :])
        more = after and after[1].lower() in compound.FRACTION_WORDS | compound.SCALES
        return f"{word} {after[1]}" if after and more else word
    return None


def _with_neighbours(text: str, found: list[tuple[re.Match, str]], last: re.Match, inside: str) -> str:
    """`$x = 3$ or $x = -3$`: formulas joined by nothing but a comma or a word are one answer."""
    start = last.start()
    for match, formula in reversed(found):
        if match.end() <= start:
            if not re.fullmatch(r",?\s*(?:(?:and|or),?\s*)?", text[match.end() : start]) or match.end() == start:
                break
            inside, start = f"{formula}, {inside}", match.start()
    return inside


def _is_prose(text: str) -> bool:
    return len(re.findall(r"(?<![\\A-Za-z{])[A-Za-z]{3,}", text)) > 1 or not re.search(r"\w", text)
