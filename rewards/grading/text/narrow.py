"""An answer within words: what the words leave is the answer, where all that they add is harmless.

A sentence is narrowed from outside in, never by picking a number from it: what is dropped has to be on a list, or a
clause without numbers that neither denies nor restricts what is said. `42 apples in total` is 42 apples; `7 maybe 8`,
`5 if n is even` and `3 quarters of 8` stay as they are.
"""

import re

from rewards.grading.text.compound import FRACTION_WORDS, SCALES, says_more
from rewards.grading.text.words import spelled_number

MAX_LENGTH = 400  # characters of an answer that is looked at: a longer one is no answer but a text
_FILLERS = frozenset(
    "a an the of in to is are it it's its that that's this which here total totals altogether all about approximately"
    " approx roughly exactly exact nearly around only just so thus hence therefore then answer answers final result"
    " results solution value count counting correct right true option choice my our your we i you get got obtain have"
    " has there please thanks thank yes ok okay sure rounded nearest decimal place places digits figures significant"
    " whole number integer tenth hundredth unit units each per as given shown seen required needed respectively"
    " percent degrees degree radians dollars cents euros of them left"
    " cm mm m km kg g in ft inches feet meters metres centimeters seconds minutes hours days square cubic".split()
)
_COPULA = (
    r"is|are|was|were|be|equals|equal to|est|ist|sind|es|son|sono|è|é|это|gives?|yields?|shows?|makes?|becomes|reads?"
    r"|totals|gets?|got|obtain|obtained|have|has|find|found|see|count|counted|counts|contains?|need|needs|takes?|costs?|pays?"
    r"|left with|pick|choose|chose|says?|answer|be exactly|(?:must|should|would|will|has to|have to) be|conclude"
    r"|是|为|等于"
)
_LEAD = re.compile(
    rf"(?:\A|.*?(?<![A-Za-z\\]))(?:{_COPULA}|(?:it|that|there|here)'s)(?![A-Za-z])(?:\s+that)?\s*:?\s*(?=\S)",
    re.IGNORECASE | re.DOTALL,
)
_LABEL = re.compile(r"(?=[A-Za-z\u4e00-\u9fff])[^:=\n]{2,80}?(?<=[A-Za-z\u4e00-\u9fff)*\]]):(?![0-9=])\s*(?=\S)")
_MARK = re.compile(r"(?:#{2,6}|[=-]>|\\?>|→|[-*•]|\\(?:implies|Rightarrow|therefore))\s*(?=\S)")
_SO = re.compile(
    r"(?:so|thus|hence|therefore|then|finally|in total|altogether|overall|yes|okay|ok|sure)\b[,:!]?\s*", re.IGNORECASE
)
_TURNS = (
    "so|thus|hence|therefore|then|final|finally|total|wait|no|actually|correct(?:ion|ed)|instead|but|which|giving"
    "|sum|difference|product|altogether"
)
_GIVEN = re.compile(r"(?:because|since|as|given that)\s[^,\n]{1,200},\s+(?=\S)", re.IGNORECASE)
_CONCLUDES = re.compile(rf"\b(?:{_TURNS})\b|[=→]|\\(?:implies|Rightarrow|therefore)", re.IGNORECASE)
_HEAD_WORDS = "about|approximately|roughly|exactly|only|just|the(?: number| value)?|a total of|a sum of"
_HEAD_FILLER = re.compile(rf"^(?:{_HEAD_WORDS})\s+(?=\S)", re.IGNORECASE)
_TAIL_WORDS = (
    "thanks|thank you|in total|in all|altogether|approximately|approx|exactly|overall|only|please|there|left"
    "|here|now|each"
)
_TAIL_FILLER = re.compile(rf",?\s+(?:{_TAIL_WORDS})$", re.IGNORECASE)
_GLOSS = re.compile(r"\s*\(([^()]*)\)$")
_REASON = re.compile(
    r"(?:\s*+[,;.])?\s++(?:because|since|due to|weil|parce que|porque)\b(.*)", re.IGNORECASE | re.DOTALL
)
_CLAUSE = re.compile(r"(?<![.,;])\s*(?:[.,;!]\s+|\s-+\s|\n)(\S.*)", re.DOTALL)
_OWN = "the|this|that|these|those|each|every|all|an?|his|her|its|our|my|your|their|total|them|figure|picture"
_PLACE = re.compile(
    rf"\s+(?:in|on|at|of|for|from|among|inside|within|along|around)\s+((?:{_OWN})\b.*)", re.DOTALL | re.IGNORECASE
)
_IS_THE_ANSWER = re.compile(r"\s+(?:is|are|(?:would|must|should) be)\s+(?:the|my|our)?\s*([A-Za-z ]+)$", re.IGNORECASE)
_RESTATED = re.compile(r",?\s*(?:i\.e\.,?|that is,?|which is|which equals|or equivalently|or simply|equivalently)\s*")
_RESTRICTS = re.compile(
    r"\b(?:least|most|more|less|than|fewer|over|under|above|below|between|up to|when|where|plus|minus)\b", re.IGNORECASE
)
_SHORT = frozenset("a i is it in of on at to as we by so be an my he do us am me up ok t s".split())
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<![\\$])\$([^$\n]+?)(?<!\\)\$", re.DOTALL)


_ASIDE = re.compile(r",\s*(?:which|who|where)\s+(?:is|are|was|were|has|have)\s+$")


def narrower(text: str) -> list[str]:
    """What may be meant by an answer within words, the longest first; none where the words say more than that."""
    if len(text) > MAX_LENGTH or not re.search(r"[^\W\d_]{2}|#|>|i\.e\.", text):
        return []
    found: list[str] = []
    waiting = [text.strip()]
    while waiting and len(found) < 12:
        for shorter in _steps(waiting.pop(0)):
            shorter = shorter.strip(" \n*").rstrip(".;,!")
            if shorter and shorter not in found and shorter != text and re.search(r"\w|∞|∅", shorter):
                found.append(shorter)
                waiting.append(shorter)
    return found


def is_statement(text: str) -> bool:
    """Has the text a verb that may introduce an answer, `is`, `gives`, `shows`, and more than that?"""
    return _LEAD.match(text) is not None


def _steps(text: str) -> list[str]:
    """The text without one thing that is harmless."""
    steps = []
    for head in (_MARK, _SO, _LABEL, _GIVEN):
        match = head.match(text)
        if match and not says_more(match.group()):
            steps.append(text[match.end() :])
    if (after := _after_lead(text)) is not None:
        steps.append(after)
    if (match := _GLOSS.search(text)) and _is_filler(match[1], text[: match.start()]):
        steps.append(text[: match.start()])
    if (match := _REASON.search(text)) and match.start() and not says_more(match[1]):
        steps.append(text[: match.start()])
    if (match := _IS_THE_ANSWER.search(text)) and _is_filler(match[1]):
        steps.append(text[: match.start()])
    for tail in (_CLAUSE, _PLACE):
        match = tail.search(text)
        while tail is _PLACE and match and is_statement(match[1]):  # the sign on the wall is red
            match = tail.search(text, match.start() + 1)
        if match and match.start() and _adds_nothing(match[1], listed="," in text[match.start() : match.start(1)]):
            steps.append(text[: match.start()])
    for filler in (_HEAD_FILLER, _TAIL_FILLER):
        steps += [filler.sub("", text)] if filler.search(text) else []
    formulas = _FORMULA.findall(text)
    if len(formulas) == 1 and _adds_nothing(_FORMULA.sub(" ", text)):
        steps.append(next(group for group in formulas[0] if group))
    restated = _RESTATED.split(text)
    if len(restated) == 2 and all(restated):
        steps.append(" or ".join(restated))  # both have to be the same, see `written_once`
    return steps


def _after_lead(text: str) -> str | None:
    """What follows the last verb of a statement; None where an earlier one stated something else, or one denies.

    The verbs of a reason ("…, since the chart shows Tuesday") and of an aside ("Paris, which is far") do not count.
    """
    reason = _REASON.search(text)
    matches = [
        match
        for match in _LEAD.finditer(text, 0, reason.start() if reason and reason.start() else len(text))
        if not _ASIDE.search(match.group())
    ]
    if not matches:
        return None
    lead, after = text[: matches[-1].end()], text[matches[-1].end() :]
    clause = re.split(r"[.;,!?\n]\s", lead)[-1]
    if says_more(clause) or _RESTRICTS.search(clause):
        return None
    for match in matches[:-1]:
        said = re.match(r"[-$\\(]*\s*[0-9]|[A-J]\b|\$", text[match.end() :])
        answers = "answer" in clause.lower() and "answer" not in lead[: -len(clause)].lower()
        stated = said or _is_number_word(_first_word(text[match.end() :]))
        if stated and not answers and not _CONCLUDES.search(text, match.end(), matches[-1].end()):
            return None
    return after


def _first_word(text: str) -> str:
    return re.split(r"[^A-Za-z]", text, maxsplit=1)[0]


def _is_filler(words: str, value: str = "") -> bool:
    """Is every word on the list? In brackets after a value, that value in words or digits, too."""
    said = spelled_number(words.strip())
    if value and (said or words).strip() == value.strip().split(" ")[-1]:
        return True
    listed = re.findall(r"[^\s,.;:]+", words)
    return all(word.lower() in _FILLERS or (value and re.fullmatch(r"[0-9]", word)) for word in listed) and bool(listed)


def _adds_nothing(clause: str, listed: bool = False) -> bool:
    """Has the clause no number, in digits or words, and does it neither deny nor restrict?

    `listed`: it stands behind a comma, where a single word may be one more answer.
    """
    if re.search(r"[0-9=<>$|^]|\\[A-Za-z]|[\u4e00-\u9fff]", clause) or says_more(clause) or _RESTRICTS.search(clause):
        return False
    words = re.findall(r"[^\W\d_]+", clause.replace("'s", " "))
    short = all(len(word) > 2 or word.lower() in _SHORT or word == "I" for word in words)
    return short and len(words) > listed and not any(_is_number_word(word) for word in words)


def _is_number_word(word: str) -> bool:
    return spelled_number(word) is not None or word.lower() in FRACTION_WORDS | SCALES
