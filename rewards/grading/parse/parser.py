r"""Normalised text → tree: one grammar for LaTeX, plain and Python-style mathematics.

sequence  := relation ("," | ";" relation)*          (1, 2) {1, 2} [1, 2] get their bracket in `_group`
relation  := union (("=" | "<" | "∈" ...) union)*    a chain a < x < b is the pair of its relations
union     := ratio (("∪" | "∩" | "∖") ratio)*
ratio     := sum (":" sum)*
sum       := product (("+" | "-" | "±" | "∓") product)*
product   := unary (("*" | "/" | nothing) unary)*
unary     := ("+" | "-") unary | power
power     := atom ("!" | "%" | "°")* ("^" exponent)?
atom      := number | name | group | function | command
"""

import re
from functools import lru_cache

from rewards.grading.parse import builders, environments, names
from rewards.grading.parse.lexer import RELATIONS, UNIONS, tokenise
from rewards.grading.parse.tokens import CLOSERS, Token, Tokens
from rewards.grading.parse.tree import Node, Op, ParseError, depth, negative, number

MAX_DEPTH = 30  # of groups within groups
MAX_TOWER = 20  # of exponents on exponents
MAX_TREE_DEPTH = 60

_PRODUCTS = ("*", "\\cdot", "\\times", "\\ast", "\\bullet", "\\star")
_QUOTIENTS = ("/", "\\div")
_SIGNED: dict[str, Op] = {"\\pm": "pm", "\\mp": "mp"}
_BARS = ("|", "\\mid", "\\vert")
_STARTS = frozenset(
    "( { [ \\{ \\langle \\frac \\binom \\sqrt \\pi \\infty \\lfloor \\lceil \\lvert \\begin \\int \\sum \\prod \\lim"
    " \\overline \\vec \\hat \\bar \\overrightarrow \\mathbb \\angle \\measuredangle \\triangle \\odot".split()
)
_ROUNDERS = {"\\lfloor": ("floor", "\\rfloor"), "\\lceil": ("ceil", "\\rceil"), "\\lvert": ("abs", "\\rvert")}
_ARROWS = ("\\vec", "\\overrightarrow", "\\hat", "\\overline", "\\bar", "\\tilde", "\\widehat")
_FIGURES = ("\\angle", "\\measuredangle", "\\triangle", "\\odot")
_CONSTANT_COMMANDS = {
    "\\pi": Node("constant", name="pi"),
    "\\infty": Node("constant", name="infinity"),
    "\\infin": Node("constant", name="infinity"),
    "\\emptyset": Node("set"),
    "\\varnothing": Node("set"),
    "\\prime": Node("symbol", name="'"),
    **dict.fromkeys(("\\ldots", "\\dots", "\\cdots"), Node("symbol", name="...")),
}


@lru_cache(maxsize=16384)
def parse(text: str) -> Node:
    """The tree of a formula. ParseError: `text` is not mathematics of moderate size that this grammar covers."""
    items = tokenise(text)
    try:
        tree = Parser(list(items)).whole()
    except ParseError:
        if "|" not in text:
            raise
        tree = Parser(list(items), reopen_bars=True).whole()
    if depth(tree) > MAX_TREE_DEPTH:
        raise ParseError(f"a formula deeper than {MAX_TREE_DEPTH} operations")
    return tree


class Parser:
    """Reads one list of tokens by recursive descent: a method for each line of the grammar and each kind of atom.

    Args:
        items: the tokens, the last of kind "end"; the parser changes the list.
        reopen_bars: the other reading of a bar after a bar, where it opens a second absolute value.
    """

    def __init__(self, items: list[Token], reopen_bars: bool = False) -> None:
        self.tokens = Tokens(items)
        self.depth = 0
        self.bars = 0  # open | signs
        self.reopen_bars = reopen_bars

    def whole(self) -> Node:
        """The tree of all tokens. ParseError: they are no formula, or more than one."""
        node = self.sequence()
        if self.tokens.token.kind != "end":
            raise ParseError(f"unexpected {self.tokens.token.text!r}")
        return node

    def sequence(self, in_set: bool = False) -> Node:
        """One relation, or a bare list of several."""
        tokens = self.tokens
        if in_set:
            self._skip_set_builder()
        items = [self.relation()]
        while tokens.at(",", ";"):
            while tokens.at(",", ";"):
                tokens.take()
            if tokens.at(")", "]", "}", "\\}", "\\end") or tokens.token.kind == "end":
                break
            items.append(self.relation())
        return items[0] if len(items) == 1 else Node("bare", tuple(items))

    def _skip_set_builder(self) -> None:
        r"""`x |` and `x \in \mathbb{R} :` at the head of a set; its condition is what counts."""
        tokens = self.tokens
        head = 6 if tokens.peek().text == "\\in" and tokens.peek(3).text == "{" else 1
        if tokens.token.kind == "letter" and tokens.peek(head).text in ("|", "\\mid", ":", "\\colon"):
            tokens.position += head + 1

    def relation(self) -> Node:
        """A formula, an equation or inequality, or a chain of these."""
        tokens = self.tokens
        terms, signs = [self.union()], []
        while tokens.token.kind in ("sign", "command") and tokens.token.text in RELATIONS:
            signs.append(RELATIONS[tokens.take().text])
            terms.append(self.union())
        relations = [
            Node("relation", (left, right), sign) for left, right, sign in zip(terms, terms[1:], signs, strict=False)
        ]
        if len(relations) > 1:
            return Node("relation", tuple(relations), "and")
        return relations[0] if relations else terms[0]

    def relation_group(self) -> Node:
        """What stands below a big operator: `{k = 1}`, `{0}` or `0`."""
        if not self.tokens.at("{"):
            return self._argument()
        self.tokens.take()
        node = self.relation()
        self.tokens.expect("}")
        return node

    def union(self) -> Node:
        """A formula, or sets joined by ∪, ∩ and ∖."""
        tokens = self.tokens
        node = self.ratio()
        while tokens.token.kind == "command" and tokens.token.text in UNIONS:
            node = Node(UNIONS[tokens.take().text], (node, self.ratio()))
        return node

    def ratio(self) -> Node:
        """A sum, or sums set apart by colons; 6:05 is a time."""
        tokens, clock = self.tokens, False
        terms = [self.sum()]
        while tokens.at(":", "\\colon") and not (self.depth and self.bars):
            if terms[0].op == "symbol" and not _starts_term(tokens.peek()):
                break
            tokens.take()
            clock |= tokens.token.kind == "number" and re.fullmatch("0[0-9]", tokens.token.text) is not None
            terms.append(self.sum())
        return terms[0] if len(terms) == 1 else Node("ratio", tuple(terms), "clock" if clock else "")

    def sum(self) -> Node:
        """Products joined by +, -, ± and ∓."""
        tokens = self.tokens
        terms = [Node(_SIGNED[tokens.take().text], (self.product(),)) if tokens.at("\\pm", "\\mp") else self.product()]
        while tokens.at("+", "-", "\\pm", "\\mp"):
            sign = tokens.take().text
            term = self.product()
            if sign in _SIGNED:
                term = Node(_SIGNED[sign], (term,))
            terms.append(negative(term) if sign == "-" else term)
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self) -> Node:
        """Factors joined by a sign, a slash or nothing; a slash divides all that stands before it."""
        tokens = self.tokens
        factors = [self.unary()]
        while True:
            if tokens.at(*_PRODUCTS):
                tokens.take()
                factors.append(self.unary())
            elif tokens.at(*_QUOTIENTS):
                tokens.take()
                factors = [Node("div", (_product(factors), self.unary()))]
            elif self._implicit():
                factors.append(self.power())
            else:
                return _product(factors)

    def _implicit(self) -> bool:
        """Does a factor follow without a sign? `2x`, `2(x+1)`, `x|y|`; never two numbers side by side."""
        token = self.tokens.token
        if token.text == "|" and token.kind == "sign":
            reopens = self.reopen_bars and self.tokens.previous.text == "|" and _starts_term(self.tokens.peek())
            return not self.bars or reopens
        if token.kind == "number":
            previous = self.tokens.previous
            return previous.text in (")", "}", "]", "\\pi") or (
                previous.kind in ("letter", "greek") and not token.spaced
            )
        return _starts_term(token)

    def _function_argument(self) -> Node:
        r"""The argument of `\sin 2x`: factors up to a sign, a slash or another function; `\sin\cos x` nests."""
        tokens = self.tokens
        if tokens.at("-", "+"):
            return self.unary()
        node = self.power()
        factors = [node]
        while self._implicit() and tokens.token.kind != "function" and not tokens.at("(", "["):
            factors.append(self.power())
        return _product(factors)

    def unary(self) -> Node:
        """A power with any number of signs before it."""
        tokens = self.tokens
        sign = 1
        while tokens.at("-", "+"):
            sign = -sign if tokens.take().text == "-" else sign
        if tokens.at("\\pm", "\\mp"):
            tokens.take()
            return Node("pm", (self.power(),))
        node = self.power()
        return node if sign == 1 else negative(node)

    def power(self) -> Node:
        """An atom with what stands behind it: exponents, degree signs, factorials, percent signs."""
        tokens = self.tokens
        node = self._postfix(self.atom())
        while tokens.at("^", "**"):
            tokens.take()
            if tokens.at("\\circ", "\\degree") or (tokens.at("{") and tokens.peek().text in ("\\circ", "\\degree")):
                node = self._degree(node)
                continue
            if tokens.at("T") or tokens.token.text == "\\prime":
                raise ParseError("a transpose or a derivative")
            exponent = self.exponent()
            if tokens.at("^", "**"):
                tokens.take()
                exponent = Node("pow", (exponent, self._tower()))
            node = self._postfix(Node("pow", (node, exponent)))
        return node

    def _tower(self) -> Node:
        """Towers bind to the right."""
        self.depth += 1
        if self.depth > MAX_TOWER:
            raise ParseError("a tower of exponents")
        exponent = self.exponent()
        if self.tokens.at("^", "**"):
            self.tokens.take()
            exponent = Node("pow", (exponent, self._tower()))
        self.depth -= 1
        return exponent

    def exponent(self) -> Node:
        """What follows ^: a group, a whole number (`x^10` means ten) or one atom, with its sign."""
        negate = False
        while self.tokens.at("-", "+"):
            negate ^= self.tokens.take().text == "-"
        exponent = self._whole_number_or_atom()
        return negative(exponent) if negate else exponent

    def _degree(self, node: Node) -> Node:
        if self.tokens.take().text == "{":
            self.tokens.take()
            self.tokens.expect("}")
        return Node("degree", (node,))

    def _postfix(self, node: Node) -> Node:
        tokens = self.tokens
        while tokens.at("!", "%", "\\degree", "'"):
            mark = tokens.take().text
            if mark == "!":
                if tokens.at("!"):
                    raise ParseError("a double factorial")
                node = Node("function", (node,), "factorial")
            elif mark == "'":
                node = Node("function", (node,), "'()")
            else:
                node = Node("percent" if mark == "%" else "degree", (node,))
        return node

    def integrand(self) -> tuple[Node, str]:
        r"""`x dx`, `\frac{dx}{x}` is not covered: the factors up to a d and the variable after it."""
        items, start, level = self.tokens.items, self.tokens.position, 0
        for index in range(start, len(items) - 1):
            text = items[index].text
            level += (text in ("(", "{", "[")) - (text in (")", "}", "]"))
            follows = items[index + 1].kind in ("letter", "greek")
            if level == 0 and text == "d" and follows and items[index].kind == "letter":
                inner = Parser([*items[start:index], Token("end", "")], self.reopen_bars)
                inner.depth = self.depth
                body = inner.whole() if index > start else number(1)
                self.tokens.position = index + 2
                return body, items[index + 1].text
        raise ParseError("an integral without d and a variable")

    def atom(self) -> Node:
        """The smallest parts: a number, a name, a group, a function, a command with its arguments."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ParseError(f"nested deeper than {MAX_DEPTH}")
        try:
            return self._atom()
        finally:
            self.depth -= 1

    def _atom(self) -> Node:
        token = self.tokens.take()
        if token.kind == "number":
            return names.numeral(self.tokens, token)
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
            self.tokens.expect(closer)
            return Node("function", (inside,), name)
        if text in _BARS:
            return self._absolute()
        return self._command(text)

    def _command(self, text: str) -> Node:
        if text in ("\\frac", "\\binom"):
            return self._two_arguments(text)
        if text == "\\sqrt":
            return self._root()
        if text in _CONSTANT_COMMANDS:
            return _CONSTANT_COMMANDS[text]
        if text == "\\begin":
            return environments.environment(self)
        if text in environments.BIG:
            return environments.big_operator(self, environments.BIG[text])
        if text == "\\lim":
            return environments.limit(self)
        if text in ("\\mathbb", "\\mathcal"):
            return Node("symbol", name=f"mathbb {self.tokens.raw_argument()}")
        if text in _FIGURES:
            return Node("symbol", name=f"{text[1:].removeprefix('measured')} {names.of_figure(self.tokens)}")
        if text in _ARROWS:
            return Node("symbol", name=f"{text[1:]} {self.tokens.raw_argument()}")
        raise ParseError(f"unexpected {text or 'end'!r}")

    def _name(self, token: Token) -> Node:
        """A symbol, a constant, or the value of a function called f, g, h or F."""
        if token.text == "m" and self.tokens.at("\\angle", "\\measuredangle"):
            return self.atom()  # the measure of an angle
        name = names.with_marks(self.tokens, token.text)
        if name.rstrip("'") in ("f", "g", "h", "F") and self.tokens.at("("):
            self.tokens.take()
            arguments = self.sequence()
            self.tokens.expect(")")
            return Node("function", _members(arguments), f"{name}()")
        if name == "e":
            return Node("constant", name="e")
        if name in ("i", "I", "imath"):
            return Node("constant", name="i")
        return Node("symbol", name=name)

    def _group(self, opener: str) -> Node:
        """What stands in brackets, and the closing one."""
        tokens = self.tokens
        if opener in ("{", "\\{", "\\lbrace") and tokens.at(CLOSERS[opener]):
            tokens.take()
            return Node("set")
        bars, self.bars = self.bars, 0
        inside = self.sequence(in_set=opener in ("\\{", "{", "\\lbrace"))
        self.bars = bars
        closer = tokens.take().text
        if opener in ("(", "[", "\\lbrack") and closer in (")", "]", "\\rbrack"):
            opener, closer = opener[-1].replace("k", "["), closer[-1].replace("k", "]")
            if opener + closer not in ("()", "[]") and not (inside.op == "bare" and len(inside.args) == 2):
                raise ParseError(f"{opener} closed by {closer}")
            return builders.bracketed(inside, opener, closer)
        if closer != CLOSERS[opener]:
            raise ParseError(f"{opener} closed by {closer or 'the end'}")
        if opener == "\\langle":
            return Node("tuple", _members(inside))
        if opener in ("\\{", "\\lbrace") or inside.op == "bare":
            return Node("set", _members(inside))
        return inside

    def _absolute(self) -> Node:
        self.bars += 1
        inside = self.sum()
        self.bars -= 1
        self.tokens.expect(*_BARS)
        return Node("function", (inside,), "abs")

    def _argument(self) -> Node:
        r"""A command's argument: a group, or one digit, letter or command."""
        tokens = self.tokens
        if tokens.token.kind == "number" and re.fullmatch("[0-9]{2,}", tokens.token.text):
            tokens.split_number()
        if tokens.at("-"):
            return self.unary()
        return self._whole_number_or_atom()

    def _two_arguments(self, command: str) -> Node:
        r"""LaTeX reads `\frac12` digit by digit; a last argument of several digits, `\frac{1}72`, is meant whole."""
        token = self.tokens.token
        digits = token.kind == "number" and len(token.text) > 1
        top = self._argument()
        whole = not digits and self.tokens.token.kind == "number"
        bottom = self._whole_number_or_atom() if whole else self._argument()
        return Node("div", (top, bottom)) if command == "\\frac" else Node("function", (top, bottom), "binom")

    def _root(self) -> Node:
        degree = number(2)
        if self.tokens.at("["):
            self.tokens.take()
            degree = self.sum()
            self.tokens.expect("]")
        return Node("pow", (self._whole_number_or_atom(), Node("div", (number(1), degree))))

    def _function(self, name: str) -> Node:
        r"""A function's base (`\log_2`), exponent (`\sin^2`, `\sin^{-1}`) and arguments, in brackets or without."""
        tokens = self.tokens
        name = builders.SPELLINGS.get(name, name)
        base: tuple[Node, ...] = ()
        if name == "log" and tokens.at("_"):
            tokens.take()
            base = (self._whole_number_or_atom(),)
        power = None
        if tokens.at("^", "**"):
            tokens.take()
            power = self.exponent()
            if power == number(-1) and name in builders.INVERSES:
                name, power = builders.INVERSES[name], None
        if tokens.at("(", "{", "["):
            inside = self.atom()
            arguments = inside.args if inside.op in ("tuple", "set", "list", "interval") else (inside,)
        else:
            arguments = (self._function_argument(),)
        node = builders.applied(name, arguments + base)
        return node if power is None else Node("pow", (node, power))

    def _whole_number_or_atom(self) -> Node:
        """A number with all its digits, and nothing that stands behind it; or an atom."""
        return builders.numeral(self.tokens.take().text) if self.tokens.token.kind == "number" else self.atom()


def _members(inside: Node) -> tuple[Node, ...]:
    return inside.args if inside.op == "bare" else (inside,)


def _product(factors: list[Node]) -> Node:
    return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))


def _starts_term(token: Token) -> bool:
    return token.kind in ("letter", "greek", "function", "number") or (
        token.kind in ("sign", "command") and token.text in _STARTS
    )
