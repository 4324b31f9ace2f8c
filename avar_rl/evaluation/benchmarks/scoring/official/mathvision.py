r"""MathVision: the official extraction and comparison.

After `evaluation/evaluate.py` (`evaluate`) and `evaluation/utils.py` (`find_math_answer`, `_strip_string`, `is_equal`,
`eval_tuple`) of mathllm/MATH-V: a letter at the head or the end, the last box, or what follows "the answer is"; equal
to the gold's letter, to the text of its option, or to either in value, rounded to 2 decimals.

Deviations: values are read by `rewards.grading`, as latex2sympy with Python's `eval` would execute a model's text. As
latex2sympy it refuses units, percent, `°`, `**` and a gold's box, and takes `1:2` for a half; it also reads `\frac12`,
`\frac{360}7` and `\sqrt[4]{12}`, and members of a tuple as numbers, `4` and `4.001` alike. The last steps of
`_strip_string`, which write fractions and roots out for latex2sympy, are left out. The official code takes any text for
an answer, so that only an empty one does not parse.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from avar_rl.evaluation.benchmarks.scoring.official.reading import UNPARSED, Reading
from data_tools.formats.sample import DataSample, known_options
from rewards.grading.compare.evaluate import UndefinedError, context, numeric
from rewards.grading.parse.tree import TooBigError, symbols
from rewards.grading.quantity import quantity
from rewards.grading.text.normalise import normalise

MAX_VALUE = 2000  # characters of a text whose value is computed
_FLAGS = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_REPLACED = ((" ", ""), (r"\,", ""), ("∞", r"\infty"), (r"+\infty", r"\infty"), ("\\\\", "\\"), ("\n", ""))
_COMMANDS = (r"\text", r"\mbox", r"\left", r"\right", r"^{\circ}", r"^\circ")
_UNITS = ("{m}^3", "m^3", "{units}", "units", "{km}", "km")
_DECORATION = (r"\!", r"\$", "$", r"\%")


def read(sample: DataSample, text: str) -> Reading:
    """Whether the text of an answer is right by the official rules; `sample` is a question of MathVision."""
    answer = extracted(text)
    if not answer:
        return UNPARSED
    options, gold = known_options(sample), str(sample.extra["answer"])
    place = ord(gold) - ord("A") if len(gold) == 1 else -1
    value = options[place] if 0 <= place < len(options) else ""
    return Reading(answer, is_equal(gold, answer) or is_equal(value, answer))


def extracted(text: str) -> str:
    """The model's answer in lower case, as the official code finds it; "" for an empty text."""
    text = text.strip()
    for letter in "ABCDE":
        ends = text.endswith((f" {letter}.", f" ({letter})."))
        if ends or text.startswith((f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")):
            text = letter
    said = text.split("is ")[-1].rstrip(".")
    if _is_number(said):
        text = said
    if "oxed{" not in text:
        text = _after_flags(text)
    elif text.count("oxed{") > 1:
        text = r"\boxed{" + text.split("oxed{")[-1]
    answer = _math_answer(text)
    for letter in "abcde":
        answer = answer.replace(f"({letter})", letter).replace(f"{{{letter}}}", letter)
    return answer.rstrip(".").lstrip(":").strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _after_flags(text: str) -> str:
    for flag in _FLAGS:
        for form in (flag, flag.replace("the", "The")):
            if form in text:
                text = text.split(form)[-1].strip().split("\n")[0].split(". ")[0]
    return text.strip()


def _math_answer(text: str) -> str:
    """The inside of the box, or else all of the text, of that what follows `=`, without units and decoration."""
    text = text.lower().replace("{}", "")
    start, end = text.find("oxed{"), text.rfind("}")
    if 0 <= start < end:
        text = text[start + len("oxed{") : end]
    closes, opens = text.find("}"), text.find("{")
    if closes >= 0 and (opens < 0 or closes < opens):
        text = text[:closes]
    text = text.split("=")[-1].split(r"\approx")[-1]
    for old, new in (*_REPLACED, *((dropped, "") for dropped in (*_COMMANDS, *_UNITS, *_DECORATION))):
        text = text.replace(old, new)
    return "0" + text if text.startswith(".") else text


def is_equal(gold: str, answer: str) -> bool:
    """The same text without case, the same tuple or list of values, or the same value, to 2 decimals."""
    gold, answer = gold.lower(), answer.lower()
    if not gold.strip() or not answer.strip():
        return False
    if gold.strip() == answer.strip() or _members(gold) == _members(answer):
        return True
    value = _value(gold)
    return value is not None and value == _value(answer)


def _members(text: str) -> str:
    """`(2*3, 5)` as `(6.0,5.0)`; any other text, and one with a member that has no value, as it is."""
    parts = text[1:-1].split(",")
    if text[0] + text[-1] not in ("()", "[]") or len(parts) < 2 or len(text) > MAX_VALUE:
        return text
    values = [part if "infty" in part or part in ("a", "-a") else _value(part) for part in parts]
    return text if None in values else text[0] + ",".join(map(str, values)) + text[-1]


@lru_cache(maxsize=4096)
def _value(text: str) -> float | None:
    """The value of a constant without a unit, rounded to 2 decimals; None: it has none."""
    if len(text) > MAX_VALUE or re.search(r"boxed|[%°]|\*\*", text):
        return None
    found = quantity(normalise(text.replace(":", "/")))
    if found is None or found.unit or symbols(found.tree):
        return None
    ctx = context()
    try:
        value = numeric(found.tree, {}, ctx)
        rounded = round(float(ctx.re(value)), 2)
    except (UndefinedError, TooBigError, OverflowError):
        return None
    return rounded if ctx.im(value) == 0 and math.isfinite(rounded) else None
