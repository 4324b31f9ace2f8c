r"""The answer of a full response: `<answer>`, the last `\boxed{}`, "the answer is …", else its last formula."""

import re

from rewards.grading.text import chinese, choices
from rewards.grading.text.boxes import last_boxes
from rewards.grading.text.unmarked import SPAN, last_expression, without_denied_end

_END = re.compile(r"<\|(?:im_end|endoftext|eot_id|end_of_text|end)\|>|<\|im_start\|>|</s>")
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
MAX_PHRASES = 20  # of the same kind, from the end, that are looked at
MAX_ANSWER = 4000  # characters after a phrase
# A line of its own. What stands before "answer" has no line end in it: else each of many empty lines reads all others
_MARKED = re.compile(r"(?:^|\n)(?:[^\S\n]|[*#_>-])*+answer\s*+[*_]*+\s*+:\s*[*_]*\s*(?=\S)", re.IGNORECASE)
_MENTIONED = re.compile(r"final\s+answer\s*$", re.IGNORECASE)
_COMMANDS = r"\(|\[|[dt]?frac|sqrt|pi|infty|boxed|text|left|begin"
_ANSWER = re.compile(rf"[\s*_\[({{+-]*(?:[0-9.]*[0-9]|\$|√|∞|\\(?:{_COMMANDS})|[A-Za-z]\w?\s*=|[A-J]\b)")
_HOPE = re.compile(r"\.?\s*I hope (?:it|this) is correct\.?.*", re.DOTALL | re.IGNORECASE)


def extract_answer(response: str) -> str | None:
    """The text of the answer that `response` states; None where it states none or is cut off within it."""
    stated, text = stated_answer(response)
    return stated if stated is not None or text is None else last_expression(text)


def stated_answer(response: str) -> tuple[str | None, str | None]:
    """The answer of a response that is marked as one, and the text to look through for an unmarked one.

    The answer is None where none is marked; the text is None where the response is cut off within its thought or its
    answer, so that nothing unmarked counts, and where `<answer>` settles it.
    """
    text = chinese.with_statements(without_denied_end(_without_tail(response)))
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    if start >= 0:
        return text[start + len("<answer>") : end].strip(), None
    opened = text.rfind("<answer>")
    if opened >= 0:
        text = text[opened + len("<answer>") :] if r"\boxed" in text[opened:] else ""
    text = text.rpartition("</think>")[2]
    boxed, box_end = last_boxes(text)
    if boxed is None and box_end:
        return None, None
    final = _phrase(_FINAL, text, box_end)
    if final is None and boxed is not None:
        final = _phrase(_MARKED, text, box_end) or _phrase(_PHRASE, text, box_end, answers_only=True)
    if final is not None:
        return final, text
    if boxed is not None:
        return boxed, text
    cut_off = response.count("<think>") > response.count("</think>")  # within its thought: nothing unmarked counts
    return _phrase(_PHRASE, text, 0), None if cut_off else text or None


def _without_tail(response: str) -> str:
    parts = [part for part in _END.split(response) if part.strip()]
    return parts[0] if parts else ""


def _phrase(pattern: re.Pattern, text: str, start: int, answers_only: bool = False) -> str | None:
    """What follows the last such phrase after `start`, up to the end of its sentence.

    Where a phrase only mentions an answer ("my final answer in a box"), or with `answers_only`, it has to begin with
    a number, a formula or the letter of a choice.
    """
    for match in list(pattern.finditer(text, start))[-MAX_PHRASES:][::-1]:
        content = _sentence(_HOPE.sub("", text[match.end() : match.end() + MAX_ANSWER]))
        if (answers_only or _MENTIONED.search(match.group())) and not _is_answer(content):
            continue
        if re.search(r"[\w∞√½∅]", content):
            return content
    return None


def _is_answer(text: str) -> bool:
    """Does the text begin with a number, a formula or the letter of a choice?"""
    return bool(_ANSWER.match(text) or choices.split_choice(text.strip(" *"))[0])


def _sentence(text: str) -> str:
    text = text.lstrip(" \n\t:*")
    span = SPAN.match(text)
    if span and not re.match(
        r"\s*(?:[=<>+*/^]|\\(?:le|ge|pm|times|cdot|approx|cup)|and\b|or\b|,\s*\$)", text[span.end() :]
    ):
        return span.group().strip()
    cut = re.search(r"[.。](?=\s|$|\*)|\n\s*\n|\n(?=[A-Z*#])", text)
    sentence = text[: cut.start()] if cut and cut.start() > 0 else text
    letter = re.match(r"\(?[A-J]\)?\.\s+\S[^\n]*", text)
    return (letter.group() if letter else sentence).strip(" \n*")
