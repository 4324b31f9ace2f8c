r"""The accuracy reward: is the answer of a response equal to the gold answer?

Cheap and exact tiers first (same text, choice letters and words, rational numbers); only what remains, expressions such
as `2\pi`, goes to math-verify in a process with a hard time limit (`rewards._symbolic`). Nothing is ever evaluated as
code. A gold that cannot be scored is an error in the data, never a silent 0.
"""

import re
from fractions import Fraction
from functools import lru_cache

from rewards._symbolic import GaveUpError, admissible, equal, parses, timeouts, to_latex
from rewards.plugin import reward
from rewards.sample import Sample

__all__ = ["accuracy", "check_gold", "extract_answer", "timeouts"]

TIME_LIMIT_S = 5.0  # per pair; a usual comparison takes milliseconds
GOLD_TIME_LIMIT_S = 30.0  # for the parse of a gold: running over it stops the caller, so a busy machine is forgiven
MAX_LENGTH = 1000  # characters of an answer or a gold

_GLYPHS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "×": r"\times ",
        "·": r"\cdot ",
        "÷": "/",
        "π": r"\pi ",
        "°": r"^\circ ",
        "²": "^2",
        "³": "^3",
        "√": r"\sqrt ",
        "∞": r"\infty ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
    }
)
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = re.compile(rf"([+-]?)({_INTEGER}?)(\.\d+)?")
_FRACTION = re.compile(r"([+-]?)(?:(\d+)\s*)??(?:\\frac\s*\{(\d+)\}\s*\{(\d+)\}|\\frac(\d)(\d)|(\d+)\s*/\s*(\d+))")
_MIXED = re.compile(r"([+-]?)(\d+)\s+(\d+)/(\d+)")
# A word after a number is its unit; two letters could be variables, so short units are listed.
_UNIT = re.compile(r"(?<=\d)\s*(\\?%|\^\s*\{?\\circ\s*\}?|[ckm]?m|in|ft|[A-Za-z]{3,}(?: [A-Za-z]{3,})?)$")
_UNIT_NAMES = {r"\%": "%", "degrees": "°", "degree": "°", "inch": "in", "inches": "in", "feet": "ft"}
_NO_UNIT = ("", "unit", "units", "cell", "cells")
_MAX_DIGITS = 60
_WORDS = re.compile(r"[A-Za-z]+(?:[ '-]+[A-Za-z]+){0,7}")
_MATHEMATICAL_WORDS = frozenset("pi sqrt sin cos tan ln log exp".split())
_CHOICE = re.compile(r"\(?([A-Za-z])(?:\)|[).:](?:\s.*)?)?", re.DOTALL)


def extract_answer(response: str) -> str | None:
    r"""The last `<answer>...</answer>`, else the content of the last `\boxed{...}`, stripped; None without either."""
    end = response.rfind("</answer>")
    start = response.rfind("<answer>", 0, max(end, 0))
    if start >= 0:
        return response[start + len("<answer>") : end].strip()
    return _last_boxed(response)


def accuracy(response: str, gold: str, *, limit_s: float = TIME_LIMIT_S) -> float:
    """1.0 where the answer of `response` equals `gold`, else 0.0.

    Callable from any thread or process. A comparison of expressions that takes over `limit_s` seconds is given up: that
    scores 0, is logged and counted (`timeouts()`).

    Raises:
        ValueError: `gold` is empty or cannot be scored.
    """
    check_gold(gold)
    answer = extract_answer(response)
    if answer is None or len(answer) > MAX_LENGTH:
        return 0.0
    gold, answer = _normalised(gold), _normalised(answer)
    if gold.casefold() == answer.casefold():
        return 1.0
    if _is_words(gold):
        return float(_choice(gold) is not None and _choice(gold) == _choice(answer))
    gold_number, number = _number(gold), _number(answer)
    if gold_number and number:
        return float(_same_number(gold_number, number))
    gold, answer = to_latex(gold), to_latex(answer)
    if not answer or not admissible(answer):
        return 0.0
    return float(equal(gold, answer, limit_s))


@lru_cache(maxsize=65536)
def check_gold(gold: str) -> None:
    """ValueError where `gold` is empty, too large, or neither words, nor a number, nor an expression that parses."""
    text = _normalised(gold) if isinstance(gold, str) and len(gold) <= MAX_LENGTH else ""
    if not text:
        raise ValueError(f"the gold answer {gold!r} is empty or over {MAX_LENGTH} characters long")
    if _is_words(text) or _number(text) is not None:
        return
    latex = to_latex(text)
    if not admissible(latex):
        raise ValueError(f"the gold answer {gold!r} is not a number, a few words, or an expression of moderate size")
    try:
        if not parses(latex, GOLD_TIME_LIMIT_S):
            raise ValueError(f"the gold answer {gold!r} does not parse as mathematics")
    except GaveUpError as error:
        raise ValueError(f"parsing the gold answer {gold!r} {error}") from None


def _last_boxed(text: str) -> str | None:
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    depth = 0
    for end in range(start + len(r"\boxed"), len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return text[start + len(r"\boxed{") : end].strip()
    return None  # cut off


def _normalised(text: str) -> str:
    """Without what does not change the meaning: maths delimiters, spacing commands, text wrappers, a final stop."""
    text = _last_boxed(text) or text
    text = re.sub(r"\\?\$|\\[()\[\]]", "", text.translate(_GLYPHS)).strip()
    text = re.sub(r"^\*\*(.*)\*\*$", r"\1", text)  # Markdown's bold
    text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])|(?<!\\)\\[,;!: ]", " ", text)
    text = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\s+", " ", text).strip()
    return text.removesuffix(".").strip()


def _is_words(text: str) -> bool:
    is_choice = re.fullmatch(r"\([A-Za-z]\)", text) is not None
    words = _WORDS.fullmatch(text)
    return is_choice or (words is not None and not _MATHEMATICAL_WORDS & set(text.lower().split()))


def _choice(text: str) -> str | None:
    """The letter of `B`, `(B)`, `B)`, `B. red` or `B: red`."""
    match = _CHOICE.fullmatch(text)
    return match.group(1).upper() if match else None


def _number(text: str) -> tuple[Fraction, str] | None:
    """The exact value of an integer, decimal, fraction or mixed number, and its unit ("" for none). None for others."""
    text, unit = _without_unit(text)
    if sum(map(str.isdigit, text)) > _MAX_DIGITS:
        return None
    if decimal := _DECIMAL.fullmatch(text):
        sign, whole, part = decimal.groups()
        if not (whole or part):
            return None
        value = Fraction((whole.replace(",", "") or "0") + (part or ""))
    elif match := _MIXED.fullmatch(text) or _FRACTION.fullmatch(text):
        sign, whole, *pair = match.groups()
        top, bottom = (int(digits) for digits in pair if digits is not None)
        if bottom == 0:
            return None
        value = int(whole or 0) + Fraction(top, bottom)
    else:
        return None
    return (-value if sign == "-" else value), unit


def _without_unit(text: str) -> tuple[str, str]:
    match = _UNIT.search(text)
    if match is None or _MATHEMATICAL_WORDS & set(match.group(1).lower().split()):
        return text, ""
    unit = "°" if "circ" in match.group(1) else _UNIT_NAMES.get(match.group(1), match.group(1))
    return text[: match.start()].strip(), "" if unit in _NO_UNIT else unit


def _same_number(gold: tuple[Fraction, str], answer: tuple[Fraction, str]) -> bool:
    """Equal, or equal to six decimals where one is no integer (0.333333 for 1/3).

    A unit may be left out, but not be another one. 50% may be written 50 or 0.5.
    """
    (gold_value, gold_unit), (value, unit) = gold, answer
    if gold_unit and unit and gold_unit != unit:
        return False
    candidates = [value]
    if (gold_unit == "%") != (unit == "%"):
        candidates.append(value / 100 if unit == "%" else value * 100)
    for candidate in candidates:
        whole = candidate.denominator == 1 and gold_value.denominator == 1
        if abs(candidate - gold_value) <= (0 if whole else Fraction(5, 10**7)):
            return True
    return False


@reward(name="accuracy")
def accuracy_reward(sample: Sample) -> float | None:
    """1.0 for the gold answer, else 0.0. ValueError for a gold that cannot be scored."""
    return accuracy(sample.response, sample.gold)
