r"""The smallest parts of a formula: numbers, names, groups, functions, fractions, roots, bars, matrices, big operators."""

import re
from fractions import Fraction

from rewards.grading.lexer import FUNCTIONS, Token
from rewards.grading.matrices import determinant
from rewards.grading.tree import Node, ParseError, negative, number

MAX_DEPTH = 30
MAX_DIGITS = 4000  # Python converts up to 4300 digits
MAX_EXPONENT = 4000  # of scientific notation

_SPELLINGS = {
    **{"tg": "tan", "ctg": "cot", "arctg": "arctan", "asin": "arcsin", "acos": "arccos", "atan": "arctan"},
    **{"asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "log": "log", "lg": "lg", "Abs": "abs"},
    **{"ceiling": "ceil", "sgn": "sign", "binomial": "binom"},
}
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc"}
_INVERSES |= {"sinh": "arcsinh", "cosh": "arccosh", "tanh": "arctanh"}
_CLOSERS = {"(": ")", "[": "]", "\\{": "\\}", "{": "}", "\\langle": "\\rangle", "\\lbrace": "\\rbrace", "\\lbrack": "\\rbrack"}
_ROUNDERS = {"\\lfloor": ("floor", "\\rfloor"), "\\lceil": ("ceil", "\\rceil"), "\\lvert": ("abs", "\\rvert")}
_BIG = {"\\int": "integral", "\\sum": "sum", "\\prod": "product"}
_ENVIRONMENTS = frozenset("matrix pmatrix bmatrix Bmatrix vmatrix smallmatrix array cases aligned align gathered".split())


def numeral(text: str) -> Node:
    """`12`, `.5`, `1.50`, `3e8`: its exact value and, for decimals, its significant digits."""
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > MAX_EXPONENT:
        raise ParseError("a number of too many digits")
    digits = len(mantissa.replace(".", "").lstrip("0")) if "." in mantissa or exponent.startswith("-") else 0
    return number(Fraction(text if not text.endswith(".") else text[:-1]), digits)


class Atoms:
    """A cursor over tokens with a method for each kind of atom. `sequence`, `sum` and `unary` are the parser's."""

    def __init__(self, tokens: list[Token], reopen_bars: bool = False) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.bars = 0  # open | signs
        self.reopen_bars = reopen_bars  # the other reading of a bar after a bar

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def peek(self, ahead: int = 1) -> Token:
        return self.tokens[min(self.position + ahead, len(self.tokens) - 1)]

    def take(self) -> Token:
        token = self.token
        self.position = min(self.position + 1, len(self.tokens) - 1)
        return token

    def at(self, *texts: str) -> bool:
        return self.token.text in texts and self.token.kind in ("sign", "command")

    def expect(self, *texts: str) -> Token:
        if not self.at(*texts):
            raise ParseError(f"expected {texts[0]!r}, found {self.token.text or 'the end'!r}")
        return self.take()

    def atom(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ParseError(f"nested deeper than {MAX_DEPTH}")
        try:
            return self._atom()
        finally:
            self.depth -= 1

    def _atom(self) -> Node:
        token = self.take()
        if token.kind == "number":
            return self._number(token)
        if token.kind in ("letter", "greek"):
            return self._name(token)
        if token.kind == "function":
            return self._function(token.text)
        text = token.text
        if text in _CLOSERS and token.kind != "word":
            return self._group(text)
        if text in _ROUNDERS:
            name, closer = _ROUNDERS[text]
            inside = self.sum()
            self.expect(closer)
            return Node("function", (inside,), name)
        if text in ("|", "\\mid", "\\vert"):
            return self._bars()
        return self._command(token)

    def _command(self, token: Token) -> Node:
        text = token.text
        if text in ("\\frac", "\\binom"):
            return self._two_arguments(text)
        if text == "\\sqrt":
            return self._root()
        if text == "\\pi":
            return Node("constant", value="pi")
        if text in ("\\infty", "\\infin"):
            return Node("constant", value="infinity")
        if text in ("\\emptyset", "\\varnothing"):
            return Node("set")
        if text == "\\begin":
            return self._environment()
        if text in _BIG:
            return self._big(_BIG[text])
        if text == "\\lim":
            return self._limit()
        if text in ("\\mathbb", "\\mathcal"):
            return Node("symbol", value=f"mathbb {self._raw_argument()}")
        if text in ("\\vec", "\\overrightarrow", "\\hat", "\\overline", "\\bar", "\\tilde", "\\widehat"):
            return Node("symbol", value=f"{text[1:]} {self._raw_argument()}")
        if text in ("\\prime", "\\ldots", "\\dots", "\\cdots"):
            return Node("symbol", value="..." if "dots" in text else "'")
        raise ParseError(f"unexpected {text or 'end'!r}")

    def _number(self, token: Token) -> Node:
        node = numeral(token.text)
        if self.at("_"):
            self.take()
            base = self._raw_argument().removeprefix("base").strip()
            base = _BASES.get(base, base)
            return node if base == "10" else Node("base", value=f"{token.text}_{base}")
        if self.at("\\overline", "\\bar") and "." in token.text:
            self.take()
            return _repeating(token.text, self._raw_argument())
        if node.value.denominator == 1 and "." not in token.text and (part := self._proper_fraction(token)):
            return number(node.value + part)
        return node

    def _proper_fraction(self, whole: Token) -> Fraction | None:
        r"""The fraction of a mixed number: `2 1/3`, `2\frac{1}{3}`, `2\frac13`. None: what follows is none."""
        texts = [self.peek(ahead).text for ahead in range(7)]
        if self.token.kind == "number" and self.token.spaced and texts[1] == "/" and self.peek(2).kind == "number":
            top, bottom, used = texts[0], texts[2], 3
        elif texts[0] == "\\frac" and texts[1] == texts[4] == "{" and texts[3] == texts[6] == "}":
            top, bottom, used = texts[2], texts[5], 7
        elif texts[0] == "\\frac" and re.fullmatch("[1-9]{2}", texts[1]):
            top, bottom, used = texts[1][0], texts[1][1], 2
        else:
            return None
        if not (re.fullmatch("[0-9]{1,9}", top) and re.fullmatch("[0-9]{1,9}", bottom) and 0 < int(bottom)):
            return None
        if texts[0] == "\\frac" and int(top) >= int(bottom):
            return None  # 3\frac{5}{2} is a product
        self.position += used
        return Fraction(int(top), int(bottom))

    def _name(self, token: Token) -> Node:
        name = token.text
        if self.at("_"):
            self.take()
            name += "_" + self._raw_argument()
        while self.at("'", "\\prime") or (self.at("^") and self.peek().text in ("\\prime", "'")):
            self.take()
            name += "" if self.tokens[self.position - 1].text == "^" else "'"
        if name.rstrip("'") in ("f", "g", "h", "F") and self.at("("):
            self.take()
            arguments = self.sequence()
            self.expect(")")
            return Node("function", arguments.args if arguments.op == "bare" else (arguments,), f"{name}()")
        if name == "e":
            return Node("constant", value="e")
        if name in ("i", "I", "imath"):
            return Node("constant", value="i")
        return Node("symbol", value=name)

    def _group(self, opener: str) -> Node:
        if self.at(")", "]", "}", "\\}", "\\rbrace") and opener in ("{", "\\{", "\\lbrace"):
            self.take()
            return Node("set")
        bars, self.bars = self.bars, 0
        inside = self.sequence(in_set=opener in ("\\{", "{", "\\lbrace"))
        self.bars = bars
        closer = self.take().text
        if opener in ("(", "[", "\\lbrack") and closer in (")", "]", "\\rbrack"):
            opener, closer = opener[-1].replace("k", "["), closer[-1].replace("k", "]")
            if opener + closer not in ("()", "[]") and not (inside.op == "bare" and len(inside.args) == 2):
                raise ParseError(f"{opener} closed by {closer}")
            return _bracketed(inside, opener, closer)
        if closer != _CLOSERS[opener]:
            raise ParseError(f"{opener} closed by {closer or 'the end'}")
        if opener == "\\langle":
            return Node("tuple", inside.args if inside.op == "bare" else (inside,))
        if opener in ("\\{", "\\lbrace") or inside.op == "bare":
            return Node("set", inside.args if inside.op == "bare" else (inside,))
        return inside

    def _bars(self) -> Node:
        self.bars += 1
        inside = self.sum()
        self.bars -= 1
        self.expect("|", "\\mid", "\\vert")
        return Node("function", (inside,), "abs")

    def _argument(self) -> Node:
        r"""A command's argument: a group, or one digit, letter or command."""
        if self.token.kind == "number" and re.fullmatch("[0-9]{2,}", self.token.text):
            digits, spaced = self.token.text, self.token.spaced
            self.tokens[self.position : self.position + 1] = [
                Token("number", digits[0], spaced),
                Token("number", digits[1:]),
            ]
        if self.at("-"):
            return self.unary()
        if self.token.kind == "number":
            return numeral(self.take().text)
        return self.atom()

    def _two_arguments(self, command: str) -> Node:
        """LaTeX reads `\frac12` digit by digit; a last argument of several digits, `\frac{1}72`, is meant whole."""
        digits = self.token.kind == "number" and len(self.token.text) > 1
        top = self._argument()
        whole = not digits and self.token.kind == "number"
        bottom = numeral(self.take().text) if whole else self._argument()
        return Node("div", (top, bottom)) if command == "\\frac" else Node("function", (top, bottom), "binom")

    def _root(self) -> Node:
        degree = number(2)
        if self.at("["):
            self.take()
            degree = self.sum()
            self.expect("]")
        inside = numeral(self.take().text) if self.token.kind == "number" else self.atom()
        return Node("pow", (inside, Node("div", (number(1), degree))))

    def _function(self, name: str) -> Node:
        name = _SPELLINGS.get(name, name)
        arguments: tuple[Node, ...] = ()
        if name == "log" and self.at("_"):
            self.take()
            arguments = (self._argument_or_number(),)
        power = None
        if self.at("^", "**"):
            self.take()
            power = self._exponent()
            if power == number(-1) and name in _INVERSES:
                name, power = _INVERSES[name], None
        if self.at("(", "{", "["):
            inside = self.atom()
            arguments = (inside.args if inside.op in ("tuple", "set", "list", "interval") else (inside,)) + arguments
        else:
            arguments = (self.function_argument(),) + arguments
        node = _applied(name, arguments)
        return node if power is None else Node("pow", (node, power))

    def _argument_or_number(self) -> Node:
        return numeral(self.take().text) if self.token.kind == "number" else self.atom()

    def _exponent(self) -> Node:
        """What follows ^: a group, a whole number (`x^10` means ten) or one atom, with its sign."""
        if self.at("-", "+"):
            negate = self.take().text == "-"
            return negative(self._exponent()) if negate else self._exponent()
        return self._argument_or_number()

    def _raw_argument(self) -> str:
        """The text of a subscript or a name under an arrow; it is only ever compared."""
        if not self.at("{", "("):
            return self.take().text
        closer = _CLOSERS[self.take().text]
        parts = []
        while not self.at(closer):
            if self.token.kind == "end" or len(parts) > 40:
                raise ParseError("a name that does not end")
            parts.append(self.take().text)
        self.take()
        return "".join(parts)

    def _environment(self) -> Node:
        name = self._raw_argument().rstrip("*")
        if name not in _ENVIRONMENTS:
            raise ParseError(f"unknown environment {name!r}")
        if name == "array" and self.at("{"):
            self._raw_argument()
        rows, row = [], []
        while not self.at("\\end"):
            if self.at("&", "\\\\"):
                raise ParseError("an empty cell")
            row.append(self.sequence() if name in ("cases", "aligned", "align", "gathered") else self.relation())
            while self.at(",", ";"):
                self.take()
            if not self.at("&"):
                rows.append(Node("row", tuple(row)))
                row = []
            if self.at("&", "\\\\"):
                self.take()
        self.take()
        if self._raw_argument().rstrip("*") != name or row:
            raise ParseError("an environment that does not end as it begins")
        if name in ("cases", "aligned", "align", "gathered"):
            return Node("bare", tuple(_one(row) for row in rows))
        if not rows or len({len(row.args) for row in rows}) != 1:
            raise ParseError("a matrix with rows of different lengths")
        matrix = Node("matrix", tuple(rows))
        return determinant(matrix) if name == "vmatrix" else matrix

    def _big(self, op: str) -> Node:
        low = high = None
        variable = ""
        while self.at("_", "^"):
            below = self.take().text == "_"
            limit = self.relation_group() if below else self._exponent()
            if below and limit.op == "relation":
                variable, limit = limit.args[0].value or "", limit.args[1]
            low, high = (limit, high) if below else (low, limit)
        body = self.sum() if op != "integral" else None
        if op == "integral":
            body, variable = self.integrand()
        if not variable or (low is None) != (high is None) or (low is None and op != "integral"):
            raise ParseError(f"an incomplete {op}")
        return Node(op, (body,) if low is None else (body, low, high), variable)

    def _limit(self) -> Node:
        self.expect("_")
        self.expect("{")
        variable = self.take().text
        self.expect("\\to", "\\rightarrow")
        point = self.sum()
        side = "+" if self.at("^") and self.peek().text == "+" else "-" if self.at("^") and self.peek().text == "-" else ""
        self.position += 2 if side else 0
        self.expect("}")
        return Node("limit", (self.product(), point, Node("symbol", value=side)), variable)


_BASES = dict(
    zip(
        "two three four five six seven eight nine ten eleven twelve sixteen".split(),
        "2 3 4 5 6 7 8 9 10 11 12 16".split(),
        strict=True,
    )
)


def _one(row: Node) -> Node:
    return row.args[0] if len(row.args) == 1 else Node("bare", row.args)


def _repeating(start: str, period: str) -> Node:
    r"""`0.1\overline{6}` = 1/6."""
    if not re.fullmatch("[0-9]{1,50}", period):
        raise ParseError("a repeating decimal whose period is no digits")
    shift = 10 ** len(start.partition(".")[2])
    return number(Fraction(start.rstrip(".")) + Fraction(int(period), shift * (10 ** len(period) - 1)))


def _bracketed(inside: Node, opener: str, closer: str) -> Node:
    if inside.op == "bare" and len(inside.args) == 2 and opener + closer != "()":
        return Node("interval", inside.args, opener + closer)
    if inside.op == "bare":
        return Node("tuple" if opener == "(" else "list", inside.args)
    return Node("list", (inside,)) if opener == "[" else inside


def _applied(name: str, arguments: tuple[Node, ...]) -> Node:
    if name == "exp" and len(arguments) == 1:
        return Node("pow", (Node("constant", value="e"), arguments[0]))
    if name == "sqrt" or name == "cbrt":
        return Node("pow", (arguments[0], Node("div", (number(1), number(2 if name == "sqrt" else 3)))))
    if name == "lg":
        return Node("function", (arguments[0], number(10)), "log")
    if name == "ln":
        return Node("function", arguments, "log")
    assert name in FUNCTIONS or name.startswith("arc")
    return Node("function", arguments, name)
