r"""Notations that another one says as well: `(1010)_2`, `0.\dot{3}`, `45^\circ 30'`, sets with a bound variable."""

import re

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PRIME = r"(?:'|\^\s*\{?\s*\\prime\s*\}?)"
_SECONDS = rf"(?:({_NUMBER})\s*(?:''|\"|\^\s*\{{?\s*\\prime\s*\\prime\s*\}}?))?"
_ARC = re.compile(rf"({_NUMBER})\s*\^\s*\{{?\s*\\circ\s*\}}?\s*({_NUMBER})\s*{_PRIME}(?!\s*['\"])\s*{_SECONDS}")
_DOT = r"\\(?:dot|overset\s*\{\s*(?:\.|\\cdot)\s*\})\s*\{?\s*([0-9])\s*\}?"
_DOTTED = re.compile(rf"([0-9]*\.[0-9]*)\s*{_DOT}(?:\s*([0-9]*)\s*{_DOT})?")
_BASED = ((re.compile(r"\(\s*([0-9A-F]+)\s*\)\s*_"), r"\1_"), (re.compile(r"_\{\s*\(\s*(\w+)\s*\)\s*\}"), r"_{\1}"))
_UNIT_VECTOR = re.compile(
    r"\\(?:hat|widehat|vec|overrightarrow|bar)\s*(?:\{\s*\\?([ijk])(?:math)?\s*\}|\s+\\?([ijk])\b)"
)
_SOLUTION = re.compile(r"(?:the\s+)?solutions?(?:\s+set)?\s+(?:is|are)\s*:?\s*(?=\S)", re.IGNORECASE)
_EQUATIONS = re.compile(r"\[([^\[\](){}]*=[^\[\](){}]*)\]")
_TWICE = re.compile(r"[^:]*(?:[<>]|\\(?:le|ge|leq|geq|leqslant|geqslant|lt|gt)(?![A-Za-z]))[^:]*:\s*(?=[\[(].*[\])]$)")
_BAR = r"\s*(?:\\mid(?![A-Za-z])|\\vert(?![A-Za-z])|\||:)\s*"
_HEAD = re.compile(
    rf"(\\\{{)\s*(\\?[A-Za-z]+)(?:\s*\\in\s*[A-Za-z]|\s*\\in\s*\\mathbb\s*\{{?[A-Z]\}}?)?{_BAR}\2\s*=(?=.*\\in)"
)
_MEMBER = r"\s*[a-z]\s*\\in(?![A-Za-z])[^|()]*"
_BUILT = re.compile(rf"\\\{{([^|:]*[^|:A-Za-z\s][^|:]*?){_BAR}({_MEMBER})\\\}}")
_REAL = re.compile(r"([a-z])\s*\\in\s*\\mathbb\s*\{?\s*R\s*\}?\s*(?:,|and\b)\s*(?=\1)")  # x ∈ R, x ≠ 1
_CONDITION = re.compile(rf"\s*,?\s*\(({_MEMBER})\)$")


def in_one_notation(text: str) -> str:
    r"""A normalised answer in the one of two notations that the grammar knows.

    `(1010)_2` → `1010_2`; `0.1\dot{6}` → `0.1\overline{6}`; `45^\circ 30'` as degrees with a fraction; `\hat{i}` beside
    `\hat{j}` → `i`; `Solution is: [x=1, y=2]` → `x=1, y=2`; `x>5: (5,\infty)` → `(5,\infty)`; `\{3k \mid k\in Z\}`,
    `\{x|x=3k, k\in Z\}` and `3k (k\in Z)` with a comma before the condition.
    """
    if "_" in text and "(" in text:
        for pattern, form in _BASED:
            text = pattern.sub(form, text)
    if "\\" in text:
        text = _of_latex(text)
    if match := _SOLUTION.match(text):
        text = text[match.end() :]
    if match := _EQUATIONS.fullmatch(text):
        text = match[1]
    return text[match.end() :] if ":" in text and (match := _TWICE.match(text)) else text


def _of_latex(text: str) -> str:
    if "dot" in text or r"\overset" in text:
        text = _DOTTED.sub(lambda m: rf"{m[1]}\overline{{{m[2]}{m[3] or ''}{m[4] or ''}}}", text)
    if r"\circ" in text:
        text = _ARC.sub(lambda m: rf"({m[1]}+{m[2]}/60+{m[3] or 0}/3600)^{{\circ}}", text)
    if len(set(map(tuple, _UNIT_VECTOR.findall(text)))) > 1:
        text = _UNIT_VECTOR.sub(lambda m: f" {m[1] or m[2]} ", text)
    if r"\in" in text:
        text = text[match.end() :] if (match := _REAL.match(text)) else text
        text = _CONDITION.sub(r", \1", _BUILT.sub(r"\{\1, \2\}", _HEAD.sub(r"\1", text)))
    return text
