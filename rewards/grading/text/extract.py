r"""The answer of a full response: `<answer>`, the last `\boxed{}`, "the answer is …", else its last formula."""

import re

from rewards.grading.text import chinese
from rewards.grading.text.normalise import closing

_END = re.compile(r"<\|(?:im_end|endoftext|eot_id|end_of_text|end)\|>|<\|im_start\|>|</s>")
_BOX = re.compile(r"\\(?:boxed|fbox|framebox|beginboxed)\s*(?=\{)|\\boxed\s+(?=[^\s{$])")
_BETWEEN_BOXES = re.compile(r"(?:[\s,;$&\\]|\\q?quad|\\text\s*\{\s*(?:and|or)?\s*\}|and|or|\\[\[\]()])*")
_FINAL = re.compile(
    r"final\s+answer\b(?:\s+(?:is|are|as follows))?[\s:*]*(?:(?:the\s+)?final\s+answer\s+is\s*:?)?", re.IGNORECASE
)
_WORDS = r"answers?|solution|réponse|respuesta|antwort|risposta|resposta|ответ|(?:correct\s+)?(?:option|choice)"
_TO_WHAT = r"(?:\s+to\s[^.:\n]{1,80}?)?"  # the answer to the question is
_IS = r"(?:(?:is|are|would be|must be|should be|est|es|ist|è|é|это)(?!\w)|:|=|-?->)"
_CHINESE, _JAPANESE = r"答案(?:是|为|:)?", r"答え(?:は|:)?"
_BEFORE_FORMULA = r"\banswer\s+(?=[$\\(\d-])"
_THEREFORE = r"(?:\s+(?:is|therefore|thus|simply|just|indeed))?"
_PHRASE = re.compile(
    rf"(?:\b(?:{_WORDS})\b{_TO_WHAT}[\s*]*{_IS}|{_CHINESE}|{_JAPANESE}|{_BEFORE_FORMULA}){_THEREFORE}[\s:*]*",
    re.IGNORECASE,
)
_HOPE = re.compile(r"\.?\s*I hope (?:it|this) is correct\.?.*", re.DOTALL | re.IGNORECASE)
_SPAN = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<![\\$])\$((?:\\\$|[^$\n])+?)(?<!\\)\$", re.DOTALL)
# A number is never a part of a numeral: 1e999999999 is not 1.
_FRACTION = r"-?[0-9]*\\[dt]?frac\{[^{}]*\}\{[^{}]*\}"
_WHOLE = r"(?<![A-Za-z0-9_.,^{])-?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_PLACES = r"(?:\.[0-9]+|,[0-9]{1,2}(?![0-9,]))?(?:\.?[eE][-+]?[0-9]+)?"
_OVER = r"(?:\s*/\s*[0-9]+(?![0-9]|\.[0-9]))?"
_POWER = r"\^\s*\{?\s*-?[0-9]+\}?"
_TIMES_TEN = rf"(?:{_POWER}|\s*(?:\\times|\\cdot|[x×*])\s*10\s*{_POWER})?"
_POINT_FIRST = r"(?<![A-Za-z0-9_])-?\.[0-9]+(?:[eE][-+]?[0-9]+)?"
_NUMBER = re.compile(rf"{_FRACTION}|{_WHOLE}{_PLACES}{_OVER}{_TIMES_TEN}\s*%?|{_POINT_FIRST}")


def extract_answer(response: str) -> str | None:
    """The text of the answer that `response` states; None where it states none or is cut off within it."""
    stated, text = stated_answer(response)
    return stated if stated is not None or text is None else last_expression(text)


def stated_answer(response: str) -> tuple[str | None, str | None]:
    """The answer of a response that is marked as one, and the text to look through for an unmarked one.

    The answer is None where none is marked; the text is None where the response is cut off within its thought or its
    answer, so that nothing unmarked counts, and where `<answer>` settles it.
    """
    text = _without_tail(chinese.with_statements(response))
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    if start >= 0:
        return text[start + len("<answer>") : end].strip(), None
    opened = text.rfind("<answer>")
    if opened >= 0:
        text = text[opened + len("<answer>") :] if r"\boxed" in text[opened:] else ""
    text = text.rpartition("</think>")[2]
    boxed, box_end = _last_boxes(text)
    if boxed is None and box_end:
        return None, None
    final = _phrase(_FINAL, text, box_end)
    if final is not None:
        return final, text
    if boxed is not None:
        return boxed, text
    cut_off = response.count("<think>") > response.count("</think>")  # within its thought: nothing unmarked counts
    return _phrase(_PHRASE, text, 0), None if cut_off else text or None


def _without_tail(response: str) -> str:
    parts = [part for part in _END.split(response) if part.strip()]
    return parts[0] if parts else ""


def _last_boxes(text: str) -> tuple[str | None, int]:
    r"""The last box and where it ends. Boxes with nothing but "," or "and" in between, the last of them: one list."""
    contents: list[str] = []
    end = 0
    for match in _BOX.finditer(text):
        if match.start() < end:
            continue  # a box within a box
        brace = match.end()
        if text[brace] != "{":
            close = brace + len(re.split(r"[\s$]", text[brace:], maxsplit=1)[0]) - 1
            content = text[brace : close + 1]
        else:
            close = closing(text, brace)
            if close is None:
                return None, len(text)
            content = text[brace + 1 : close].strip()
        between = text[end : match.start()]
        joins = contents and _BETWEEN_BOXES.fullmatch(between) and re.search(r"[,;]|and|or", between)
        contents = [*contents, content] if joins else [content]
        end = close + 1
    return (", ".join(contents) if contents else None), end


def _phrase(pattern: re.Pattern, text: str, start: int) -> str | None:
    """What follows the last such phrase after `start`, up to the end of its sentence."""
    for match in reversed(list(pattern.finditer(text, start))):
        content = _sentence(_HOPE.sub("", text[match.end() :]))
        if re.search(r"[\w∞√½∅]", content):
            return content
    return None


def _sentence(text: str) -> str:
    text = text.lstrip(" \n\t:*")
    span = _SPAN.match(text)
    if span and not re.match(
        r"\s*(?:[=<>+*/^]|\\(?:le|ge|pm|times|cdot|approx|cup)|and\b|or\b|,\s*\$)", text[span.end() :]
    ):
        return span.group().strip()
    cut = re.search(r"[.。](?=\s|$|\*)|\n\s*\n|\n(?=[A-Z*#])", text)
    sentence = text[: cut.start()] if cut and cut.start() > 0 else text
    letter = re.match(r"\(?[A-J]\)?\.\s+\S[^\n]*", text)
    return (letter.group() if letter else sentence).strip(" \n*")


_PLAIN_WORDS = re.compile(r"(?<![\\A-Za-z])(?!(?:or|and|pi|sqrt|cm|mm|km|ft|kg|am|pm)\b)[^\W\d_]{2,}")


_LEADS_IN = re.compile(
    r"\b(?:is|are|equals|at|get|gets|have|obtain|gives?|yields?|therefore|hence|thus|so|then)\b", re.IGNORECASE
)


def _plain_clause(text: str) -> str | None:
    """`y = 3x - 2` of "The line is y = 3x - 2.": what a closing sentence says, where that is nothing but a formula."""
    sentence = re.split(r"\n|(?<![0-9])\.\s|\.\s+(?=[A-Z])", text.strip().rstrip("."))[-1]
    clauses = _LEADS_IN.split(sentence)
    said = clauses[-1].strip(" :*,")
    plain = len(clauses) > 1 and re.search(r"[0-9]", said) and "$" not in said and not _PLAIN_WORDS.search(said)
    return said if plain else None


def last_expression(text: str, *, formula_wanted: bool = False) -> str | None:
    """The last formula between dollar signs, or number, of a text without a stated answer; None: there is neither.

    With `formula_wanted`, a formula that stands in the prose of the closing sentence comes first.
    """
    if len(text) < 200 and not re.search(r"(?<![\\A-Za-z])[^\W\d_]{3,}|[\u4e00-\u9fff]", text):
        return text.strip()  # nothing but a formula
    if formula_wanted and (said := _plain_clause(text)) is not None:
        return said
    found = [(m, next(g for g in m.groups() if g is not None)) for m in _SPAN.finditer(text) if m.group().strip("$ ")]
    formula = (-1, None)
    for match, inside in reversed(found):
        if not _is_prose(inside):
            formula = match.end(), _with_neighbours(text, found, match, inside)
            break
    numbers = [(m.end(), m.group().strip()) for m in _NUMBER.finditer(text)]
    number = numbers[-1] if numbers else (-1, None)
    return formula[1].strip() if formula[0] >= number[0] and formula[1] else number[1]


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
