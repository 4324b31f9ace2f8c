r"""Text without what does not change its meaning: Unicode forms, LaTeX and Markdown decoration, spacing, delimiters."""

import re
import unicodedata

from rewards.grading.text import chinese, notation

_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ",
        (
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi"
            " psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
        ).split(),
        strict=True,
    )
)
_COMMANDS = {
    "√": "sqrt",
    "∞": "infty",
    "≤": "le",
    "≥": "ge",
    "≠": "ne",
    "⩽": "le",
    "⩾": "ge",
    "≈": "approx",
    "±": "pm",
    "∓": "mp",
    "×": "times",
    "·": "cdot",
    "⋅": "cdot",
    "∙": "cdot",
    "∪": "cup",
    "∩": "cap",
    "∈": "in",
    "∅": "emptyset",
    "⟨": "langle",
    "⟩": "rangle",
    "∠": "angle",
    "△": "triangle",
    "→": "to",
    "∑": "sum",
    "∫": "int",
    "ℝ": "mathbb R",
    "ℤ": "mathbb Z",
    "ℕ": "mathbb N",
}
_PLAIN = {
    **dict.fromkeys("−–—‒﹣", "-"),
    **dict.fromkeys("“”„", '"'),
    **dict.fromkeys("‘’′", "'"),
    "÷": "/",
    "⁄": "/",
    "∕": "/",
    "∶": ":",
    "°": r"^{\circ}",
    "º": r"^{\circ}",
    "℃": r"^{\circ} C",
    "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]",
    "。": ". ",
    "，": ", ",
    "、": ", ",
    "；": "; ",
    "：": ": ",
    "‰": "/1000",
    "≦": r"\le ",
    "≧": r"\ge ",
    "【": "[",
    "】": "] ",
    **{chr(0x2460 + index): rf"\textcircled{{{index + 1}}}" for index in range(20)},  # ①
}
_GLYPHS = str.maketrans(_PLAIN | {glyph: f"\\{name} " for glyph, name in (_GREEK | _COMMANDS).items()})
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_TEXT = r"text|textbf|textit|textrm|textsf|texttt|textnormal|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|bm"
_TEXT = rf"(?:{_TEXT}|boldsymbol|mbox|hbox|operatorname\*?|emph|underline|textup|rm|bf|fbox|boxed|framebox|mathop|bold)"
_WRAPPER = re.compile(rf"\\{_TEXT}\s*\{{([^{{}}]*(?:\{{[^{{}}]*\}}[^{{}}]*)*)\}}")
_STYLES = "displaystyle|textstyle|scriptstyle|limits|nolimits|rm|bf|it|mathstrut|strut|hfill|newline|par|large|Large"
_LAYOUT = "hspace|vspace|phantom|label|tag|color"
_DECORATION = re.compile(rf"\\(?:{_STYLES})(?![A-Za-z])|\\(?:{_LAYOUT})\*?\s*\{{[^{{}}]*\}}")
_SIZES = re.compile(r"\\(?:left|right|bigl|bigr|Bigl|Bigr|big|Big|bigg|Bigg|biggl|biggr|middle)(?![A-Za-z])\s*")
_SPACES = re.compile(r"\\q?quad|\\(?:enspace|thinspace|[;: >])(?![A-Za-z])|(?<!\\)~")
_SPECIAL_TOKENS = re.compile(r"<\|[^|<>]{1,40}\|>|</?s>")
_UNBRACED_ROOT = re.compile(r"\\sqrt\s*\{\s*\}\s*\{")


def glyphs(text: str) -> str:
    """The text with ASCII or LaTeX for Unicode digits, signs, Greek and fractions, and without invisible marks."""
    if text.isascii():
        return "".join(c for c in text if c.isprintable() or c in "\n\t") if not text.isprintable() else text
    text = "".join(" " if c in "\n\t" else c for c in text if c in "\n\t" or unicodedata.category(c) not in _INVISIBLE)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: "^{" + m.group().translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda m: "_{" + m.group().translate(_SUBSCRIPTS) + "}", text)
    text = re.sub("([0-9])\u0307", r"\\dot{\1}", text)
    text = re.sub("[¼-¾⅐-⅞↉]", _vulgar_fraction, text)
    return unicodedata.normalize("NFKC", text.translate(_GLYPHS)).translate(_GLYPHS)


_INVISIBLE = frozenset({"Cf", "Cc", "Cs", "Co", "Cn"})


def _vulgar_fraction(match: re.Match) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match.group()).partition("⁄")
    return rf"\frac{{{top}}}{{{bottom}}}"


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}`, `\fbox{...}` or `\boxed x`. None without one, or where it is cut off."""
    start = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"), text.rfind(r"\framebox"), text.rfind("boxed{") - 6)
    found = re.compile(r"\\?[a-z]*boxed?\s*").match(text, max(start, 0)) if start >= 0 else None
    if found is None:
        return None
    if text[found.end() : found.end() + 1] != "{":
        return re.split(r"[\s$]", text[found.end() :], maxsplit=1)[0].strip() or None
    end = closing(text, found.end())
    return None if end is None else text[found.end() + 1 : end].strip()


def closing(text: str, start: int) -> int | None:
    """The index of the brace that closes the one at `start`; escaped braces do not count. None: it stays open."""
    depth = 0
    for mark in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += (mark.group() == "{") - (mark.group() == "}")
        if depth == 0:
            return start + mark.start()
    return None


def normalise(text: str) -> str:
    r"""One spelling of an answer: no wrappers, delimiters, sizes or spacing commands; digits joined; trimmed."""
    text = _SPECIAL_TOKENS.sub(" ", glyphs(text))
    text = _unwrapped(text.strip())
    if r"\begin" not in text:
        text = re.sub(r"\\\\(?=[A-Za-z]{2,})", lambda _: "\\", text)  # a backslash escaped once too often
    text = re.sub(r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}|^([^{}]*)\\over(?![a-z])([^{}]*)$", _over, text)
    text = _UNBRACED_ROOT.sub(r"\\sqrt{", text)
    text = _digits_joined(_python_forms(text))
    text = re.sub(r"\\(?:left|bigl?|Bigl?)\s*(?:\||\\vert)", r"\\lvert ", text)
    text = re.sub(r"\\(?:right|bigr|Bigr)\s*(?:\||\\vert)", r"\\rvert ", text)
    text = _DECORATION.sub(" ", _SIZES.sub("", text))
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\([tdc]binom|choose)(?![A-Za-z])", r"\\binom", text) if "binom" in text else text
    for _ in range(4):  # wrappers within wrappers
        text, count = _WRAPPER.subn(r" \1 ", text)
        if not count:
            break
    text = _SPACES.sub(" ", text)
    text = re.sub(r"(?<!\\)\\!", "", text)
    text = re.sub(r"(?<!\\)\\,", " ", text)
    text = (
        re.sub(r"\\(?=[\"'])", "", text)
        .replace(r"\%", "%")
        .replace(r"\#", "#")
        .replace(r"\_", "_")
        .replace("&nbsp;", " ")
    )
    text = _trimmed(text)
    if not text.isascii() or "textcircled" in text:
        text = _trimmed(chinese.in_common_spelling(text))
    return _in_symbols(notation.in_one_notation(text))


_FRACTIONS = {"(?:one|a)[ -]half": "1/2", "one[ -]third": "1/3", "two[ -]thirds": "2/3"}
_FRACTIONS |= {"(?:one|a)[ -](?:quarter|fourth)": "1/4", "three[ -](?:quarters|fourths)": "3/4"}
_NUMBERS = "(?:the )?(?:set of )?(?:all )?(?:the )?real(?:s| numbers)"
_SAID = (
    (
        re.compile(r"(?:there (?:is|are) )?no (?:real )?solutions?(?: exists?)?|(?:the )?empty set", re.IGNORECASE),
        r"\\emptyset",
    ),
    (re.compile(rf"(?:{_NUMBERS}|x (?:can be|is) any real number|any real number)", re.IGNORECASE), r"\\mathbb R"),
    (re.compile(r"([0-9]{1,6}) to ([0-9]{1,6})"), r"\1:\2"),
    *((re.compile(rf"(?:{words})", re.IGNORECASE), value) for words, value in _FRACTIONS.items()),
)


def _in_symbols(text: str) -> str:
    r"""Whole answers that say in words what has a symbol: no solution, all real numbers, 3 to 4, one half."""
    if text[-1:].isalpha() or " to " in text:
        for said, symbol in _SAID:
            if match := said.fullmatch(text):
                return match.expand(symbol)
    return text


def _over(match: re.Match) -> str:
    top, bottom = (part for part in match.groups() if part is not None)
    return rf"\frac{{{top}}}{{{bottom}}}"


def _unwrapped(text: str) -> str:
    boxed = last_boxed(text) if "box" in text else None
    text = boxed or text
    tagged = re.fullmatch(r"<answer>(.*?)(?:</answer>)?", text, re.DOTALL)
    text = tagged.group(1).strip() if tagged else text
    for _ in range(3):
        text = re.sub(r"^(\*\*|__|`+|\"|')(.+?)\1\s*([.,;]?)$", r"\2\3", text, flags=re.DOTALL).strip()
    return re.sub(r"(?<![\w*])\*\*(?=\S)([^*]+)(?<=\S)\*\*(?![\w*])", r"\1", text)


_PYTHON = (
    (re.compile(r"(?:sympy\.|sp\.|np\.)?(?:Immutable)?(?:Matrix|array)\((.*)\)", re.DOTALL), r"\1"),
    (re.compile(r"FiniteSet\((.*)\)"), r"\\{\1\\}"),
    (re.compile(r"Interval\.open\((.*)\)"), r"(\1)"),
    (re.compile(r"Interval\(([^()]*)\)"), r"[\1]"),
    (re.compile(r"Eq\(([^,]*),([^,]*)\)"), r"\1=\2"),
    (re.compile(r"(?:Tuple|Rational|Fraction|Point)\((.*)\)"), r"(\1)"),
)


def _python_forms(text: str) -> str:
    """Whole answers as sympy prints them: Matrix([[1, 2]]), FiniteSet(1, 2), Rational(1, 2)."""
    if not re.match(r"[A-Za-z.]+\(", text):
        return text
    text = re.sub(r"\b(?:Rational|Fraction)\((-?[0-9]+), *([0-9]+)\)", r"(\1/\2)", text)
    for pattern, form in _PYTHON:
        if match := pattern.fullmatch(text):
            return match.expand(form)
    return text


def _digits_joined(text: str) -> str:
    r"""`1\,234`, `18{,}234`, `11,\! 111` → digits without the decoration."""
    text = re.sub(r"(?<=[0-9])\s*[xX]\s*(?=10\s*(?:\^|\*\*))", r"\\times ", text)
    text = re.sub(
        r"(?<![0-9.])([0-9]{0,40}\.[0-9]{0,40}?)([0-9]{1,6}?)\2+(?:\.\.\.|\\[lc]?dots)$", r"\1\\overline{\2}", text
    )
    text = re.sub(r"(?<=[0-9])(?:\s?\{\s*,\s*\}|,\\!|\\!,)\s*(?=[0-9])", ",", text)
    return re.sub(r"(?<=[0-9])(?:\\[,!;]|[\u2009\u202f\u00a0'])(?=[0-9]{2,3}(?![0-9]))", "", text)


def _trimmed(text: str) -> str:
    text = re.sub(r"\\\\\s*\[\s*-?[0-9.]+\s*(?:pt|em|ex|mm|cm)\s*\]", r"\\\\", text)  # the height of a matrix row
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text)
    text = re.sub(r"(?<!\\)\$\$?", " ", text) if not _is_money(text) else text
    text = re.sub(r"\\\$(?!\s*[0-9.])", " ", text).replace(r"\$", "$")
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"^(?:[:=#]|\\(?:Rightarrow|implies|therefore|to)(?![A-Za-z]))\s*", "", text)
    text = _FILLERS.sub("", text)
    previous = None
    while text != previous:
        previous = text
        text = re.sub(r"(?:(?<!\\)[.;,:?。]|(?<!\\)\\|\\\\)$", "", text).strip()
    return text


_APPROXIMATELY = r"approximately|about|around|roughly|exactly|nearly|approx\.?|precisely"
_THEREFORE = "therefore|thus|so|hence|just|only"
_FILLERS = re.compile(
    rf"^(?:(?:{_APPROXIMATELY}|{_THEREFORE})\b,?|~|\\approx(?![A-Za-z]))\s*(?=\S)",
    re.IGNORECASE,
)


def _is_money(text: str) -> bool:
    """`$5` and `$1,200.50`, one dollar sign before a number: money, no formula."""
    return text.count("$") - text.count(r"\$") == 1 and re.match(r"\s*-?\s*\$\s*[0-9.]", text) is not None
