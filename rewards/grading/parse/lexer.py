r"""Normalised text → tokens. Only what is on the lists below becomes a token; all else is refused."""

import re
from typing import cast

from rewards.grading.parse.tokens import Token
from rewards.grading.parse.tree import Op, ParseError

MAX_TOKENS = 800

FUNCTIONS = frozenset(
    (
        "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot arcsec arccsc arcsinh arccosh arctanh"
        " asin acos atan asinh acosh atanh ln log lg exp sqrt cbrt abs floor ceil ceiling sign sgn gcd lcm max min det"
        " factorial binomial Abs arg Re Im deg erf Gamma gamma tg ctg arctg"
    ).split()
)
GREEK = frozenset(
    (
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau"
        " upsilon phi varphi chi psi omega partial Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar imath"
    ).split()
)
RELATIONS = {
    **{"=": "=", "==": "=", ":=": "=", "\\equiv": "=", "\\approx": "~", "\\simeq": "~", "\\doteq": "~"},
    **{"<": "<", "\\lt": "<", ">": ">", "\\gt": ">", "\\coloneqq": "="},
    **{"<=": "<=", "=<": "<=", "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=", "\\leqq": "<="},
    **{">=": ">=", "=>": ">=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\geqq": ">="},
    **{"!=": "!=", "<>": "!=", "\\ne": "!=", "\\neq": "!=", "\\in": "in"},
}
UNIONS: dict[str, Op] = {"\\cup": "union", "\\cap": "intersection", "\\setminus": "difference", "\\bigcup": "union"}
_COMMANDS = frozenset(
    (
        "frac sqrt binom pi infty pm mp cdot times div ast circ degree cup bigcup cap setminus backslash emptyset"
        " varnothing lvert rvert vert mid langle rangle lfloor rfloor lceil rceil lbrace rbrace begin end overline bar"
        " int sum prod lim to rightarrow mathbb R Z N Q C in le leq leqslant leqq ge geq geqslant geqq lt gt ne neq"
        " equiv approx simeq doteq coloneqq infin operatorname bmod pmod mod colon prime vec hat tilde widehat mathcal"
        " overrightarrow over angle measuredangle triangle odot lbrack rbrack dots ldots cdots bullet star"
    ).split()
)
_EXPONENT = r"[eE][+-]?[0-9]+"
_DECIMAL = rf"[0-9]+(?:\.(?![.])[0-9]*)?(?:{_EXPONENT}(?![0-9.]))?"
_POINT_FIRST = rf"\.[0-9]+(?:{_EXPONENT})?"
_COMMAND = r"\\(?:[A-Za-z]+|[\\{}|,;:! ])"
_SIGN = r"\*\*|<=|>=|=<|=>|!=|<>|==|:=|[-+*/^_=<>()\[\]{}|,;:!%&']"
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>{_DECIMAL}|{_POINT_FIRST})|(?P<command>{_COMMAND})|(?P<word>[A-Za-z]+)|(?P<sign>{_SIGN}))"
)
_GLUED_COMMAND = re.compile(r"(le|ge|leq|geq|lt|gt|ne|pi|cdot|times|infty|pm|cup|in|to)([A-Za-z])")
_GLUED_WORD = re.compile(r"([A-Za-z]{0,2}?)(pi|sqrt|sin|cos|tan|ln|log|exp)([A-Za-z]{0,2})")
_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])")


def tokenise(text: str) -> list[Token]:
    """The tokens of a formula, the last of kind "end".

    Raises:
        ParseError: a character or command is not mathematics, or there are more than MAX_TOKENS tokens.
    """
    text = _without_thousands(text) if "," in text else text
    tokens: list[Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise ParseError(f"unexpected character {text[position : position + 10]!r}")
        position = match.end()
        kind = cast(str, match.lastgroup)  # one of the named groups is what matched
        tokens += _tokens(kind, match[kind], match.start(kind) > match.start())
        if len(tokens) > MAX_TOKENS:
            raise ParseError(f"more than {MAX_TOKENS} tokens")
    return [*tokens, Token("end", "")]


def _without_thousands(text: str) -> str:
    """`1,234` → `1234`; in brackets only where other commas have a space: (1,234) is a pair, (1,234, 5) too."""
    joined, position = [], 0
    for match in _THOUSANDS.finditer(text):
        before = text[: match.start()]
        nested = sum(map(before.count, "([{")) > sum(map(before.count, ")]}"))
        separated = re.search(r",\s", text[: match.start()] + text[match.end() :]) is not None
        joined += [
            text[position : match.start()],
            match.group() if nested and not separated else match.group().replace(",", ""),
        ]
        position = match.end()
    return "".join([*joined, text[position:]])


def _tokens(group: str, text: str, spaced: bool) -> list[Token]:
    if group == "word":
        return _word(text, spaced)
    if group == "command":
        return _command(text, spaced)
    return [Token("number" if group == "number" else "sign", text, spaced)]


def _command(text: str, spaced: bool) -> list[Token]:
    name = text[1:]
    if name in ("\\", "{", "}", "|"):
        return [Token("sign" if name == "|" else "command", "|" if name == "|" else text, spaced)]
    if not name.isalpha():  # spacing
        return []
    if name in FUNCTIONS and not (name in ("gamma", "Gamma", "lg", "deg") and name in GREEK):
        return [Token("command" if name == "sqrt" else "function", text if name == "sqrt" else name, spaced)]
    if name in GREEK:
        return [Token("greek", name, spaced)]
    if name in _COMMANDS:
        return [Token("command", text, spaced)]
    glued = _GLUED_COMMAND.fullmatch(name)
    if glued:  # \lex for \le x
        return [Token("command", "\\" + glued.group(1), spaced), Token("letter", glued.group(2))]
    raise ParseError(f"unknown command {text!r}")


def _word(text: str, spaced: bool) -> list[Token]:
    """A function, a Greek name, infinity, or up to three letters as a product; functions may be glued: `xsin`."""
    if text in FUNCTIONS and text not in GREEK:
        return [Token("command" if text == "sqrt" else "function", "\\sqrt" if text == "sqrt" else text, spaced)]
    if text in ("pi", "Pi", "PI"):
        return [Token("command", "\\pi", spaced)]
    if text in GREEK and len(text) > 2:
        return [Token("greek", text, spaced)]
    if text.lower() in ("inf", "infinity", "oo"):
        return [Token("command", "\\infty", spaced)]
    if text in ("cup", "U") and spaced:
        return [Token("command", "\\cup", spaced)]
    glued = _GLUED_WORD.fullmatch(text)
    if glued and (glued.group(1) or glued.group(3)):
        parts = [part for part in glued.groups() if part]
        return [token for number, part in enumerate(parts) for token in _word(part, spaced and number == 0)]
    if len(text) > 3:
        return [Token("word", text, spaced)]  # allowed in a subscript only
    return [Token("letter", letter, spaced and number == 0) for number, letter in enumerate(text)]
