r"""The smallest parts of a formula: numbers, names, groups, functions, fractions, roots, bars, matrices."""

import re
from fractions import Fraction

from rewards.grading.parse import builders
from rewards.grading.parse.cursor import BIG, CLOSERS, Cursor
from rewards.grading.parse.lexer import Token
from rewards.grading.parse.tree import Node, ParseError, negative, number

MAX_DEPTH = 30

_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc"}
_INVERSES |= {"sinh": "arcsinh", "cosh": "arccosh", "tanh": "arctanh"}
_ROUNDERS = {"\\lfloor": ("floor", "\\rfloor"), "\\lceil": ("ceil", "\\rceil"), "\\lvert": ("abs", "\\rvert")}


class Atoms(Cursor):
    """A method for each kind of atom."""

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
        if text in CLOSERS and token.kind != "word":
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
        if text in BIG:
            return self._big(BIG[text])
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
        node = builders.numeral(token.text)
        if self.at("_"):
            self.take()
            base = self._raw_argument().removeprefix("base").strip()
            base = builders.BASES.get(base, base)
            return node if base == "10" else Node("base", value=f"{token.text}_{base}")
        if self.at("\\overline", "\\bar") and "." in token.text:
            self.take()
            return builders.repeating(token.text, self._raw_argument())
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
        if opener in ("{", "\\{", "\\lbrace") and self.at(CLOSERS[opener]):
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
            return builders.bracketed(inside, opener, closer)
        if closer != CLOSERS[opener]:
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
            return builders.numeral(self.take().text)
        return self.atom()

    def _two_arguments(self, command: str) -> Node:
        """LaTeX reads `\frac12` digit by digit; a last argument of several digits, `\frac{1}72`, is meant whole."""
        digits = self.token.kind == "number" and len(self.token.text) > 1
        top = self._argument()
        whole = not digits and self.token.kind == "number"
        bottom = builders.numeral(self.take().text) if whole else self._argument()
        return Node("div", (top, bottom)) if command == "\\frac" else Node("function", (top, bottom), "binom")

    def _root(self) -> Node:
        degree = number(2)
        if self.at("["):
            self.take()
            degree = self.sum()
            self.expect("]")
        inside = builders.numeral(self.take().text) if self.token.kind == "number" else self.atom()
        return Node("pow", (inside, Node("div", (number(1), degree))))

    def _function(self, name: str) -> Node:
        name = builders.SPELLINGS.get(name, name)
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
        node = builders.applied(name, arguments)
        return node if power is None else Node("pow", (node, power))

    def _argument_or_number(self) -> Node:
        return builders.numeral(self.take().text) if self.token.kind == "number" else self.atom()

    def _exponent(self) -> Node:
        """What follows ^: a group, a whole number (`x^10` means ten) or one atom, with its sign."""
        negate = False
        while self.at("-", "+"):
            negate ^= self.take().text == "-"
        exponent = self._argument_or_number()
        return negative(exponent) if negate else exponent
