r"""Normalised text → tree: one grammar for LaTeX, plain and Python-style mathematics.

sequence  := relation ("," | ";" relation)*          (1, 2) {1, 2} [1, 2) get their bracket in `atoms`
relation  := union (("=" | "<" | "∈" ...) union)*    a chain a < x < b is the pair of its relations
union     := ratio (("∪" | "∩" | "∖") ratio)*
ratio     := sum (":" sum)*
sum       := product (("+" | "-" | "±" | "∓") product)*
product   := unary (("*" | "/" | nothing) unary)*
unary     := ("+" | "-") unary | power
power     := atom ("!" | "%" | "°")* ("^" exponent)?
"""

from functools import lru_cache

from rewards.grading.parse.atoms import Atoms
from rewards.grading.parse.lexer import RELATIONS, UNIONS, Token, tokenise
from rewards.grading.parse.tree import Node, ParseError, depth, negative, number

_PRODUCTS = ("*", "\\cdot", "\\times", "\\ast", "\\bullet", "\\star")
_QUOTIENTS = ("/", "\\div")
_STARTS = frozenset(
    "( { [ \\{ \\langle \\frac \\binom \\sqrt \\pi \\infty \\lfloor \\lceil \\lvert \\begin \\int \\sum \\prod \\lim"
    " \\overline \\vec \\hat \\bar \\overrightarrow \\mathbb".split()
)


MAX_TREE_DEPTH = 60


@lru_cache(maxsize=16384)
def parse(text: str) -> Node:
    """ParseError: `text` is not mathematics of moderate size that this grammar covers."""
    tokens = tokenise(text)
    try:
        tree = Parser(list(tokens)).whole()
    except ParseError:
        if "|" not in text:
            raise
        tree = Parser(list(tokens), reopen_bars=True).whole()
    if depth(tree) > MAX_TREE_DEPTH:
        raise ParseError(f"a formula deeper than {MAX_TREE_DEPTH} operations")
    return tree


class Parser(Atoms):
    """See the grammar above."""

    def whole(self) -> Node:
        node = self.sequence()
        if self.token.kind != "end":
            raise ParseError(f"unexpected {self.token.text!r}")
        return node

    def sequence(self, in_set: bool = False) -> Node:
        if in_set:
            self._skip_set_builder()
        items = [self.relation()]
        while self.at(",", ";"):
            while self.at(",", ";"):
                self.take()
            if self.at(")", "]", "}", "\\}", "\\end") or self.token.kind == "end":
                break
            items.append(self.relation())
        return items[0] if len(items) == 1 else Node("bare", tuple(items))

    def _skip_set_builder(self) -> None:
        r"""`x |` and `x \in \mathbb{R} :` at the head of a set; its condition is what counts."""
        head = 6 if self.peek().text == "\\in" and self.peek(3).text == "{" else 1
        if self.token.kind == "letter" and self.peek(head).text in ("|", "\\mid", ":", "\\colon"):
            self.position += head + 1

    def relation(self) -> Node:
        terms, names = [self.union()], []
        while self.token.kind in ("sign", "command") and self.token.text in RELATIONS:
            names.append(RELATIONS[self.take().text])
            terms.append(self.union())
        relations = [
            Node("relation", (left, right), name) for left, right, name in zip(terms, terms[1:], names, strict=False)
        ]
        if len(relations) > 1:
            return Node("relation", tuple(relations), "and")
        return relations[0] if relations else terms[0]

    def relation_group(self) -> Node:
        """What stands below a big operator: `{k = 1}`, `{0}` or `0`."""
        if not self.at("{"):
            return self._argument()
        self.take()
        node = self.relation()
        self.expect("}")
        return node

    def union(self) -> Node:
        node = self.ratio()
        while self.token.kind == "command" and self.token.text in UNIONS:
            node = Node(UNIONS[self.take().text], (node, self.ratio()))
        return node

    def ratio(self) -> Node:
        terms = [self.sum()]
        while self.at(":", "\\colon") and not (self.depth and self.bars):
            if terms[0].op == "symbol" and not _starts_term(self.peek()):
                break
            self.take()
            terms.append(self.sum())
        return terms[0] if len(terms) == 1 else Node("ratio", tuple(terms))

    def sum(self) -> Node:
        terms = [Node(self.take().text[1:], (self.product(),)) if self.at("\\pm", "\\mp") else self.product()]
        while self.at("+", "-", "\\pm", "\\mp"):
            sign = self.take().text
            term = self.product()
            if sign in ("\\pm", "\\mp"):
                term = Node(sign[1:], (term,))
            terms.append(negative(term) if sign == "-" else term)
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self) -> Node:
        factors = [self.unary()]
        while True:
            if self.at(*_PRODUCTS):
                self.take()
                factors.append(self.unary())
            elif self.at(*_QUOTIENTS):
                self.take()
                factors = [Node("div", (_product(factors), self.unary()))]
            elif self._implicit():
                factors.append(self.power())
            else:
                return _product(factors)

    def _implicit(self) -> bool:
        """Does a factor follow without a sign? `2x`, `2(x+1)`, `x|y|`; never two numbers side by side."""
        token = self.token
        if token.text == "|" and token.kind == "sign":
            reopens = self.reopen_bars and self.tokens[self.position - 1].text == "|" and _starts_term(self.peek())
            return not self.bars or reopens
        if token.kind == "number":
            previous = self.tokens[self.position - 1]
            return previous.text in (")", "}", "]", "\\pi") or (
                previous.kind in ("letter", "greek") and not token.spaced
            )
        return _starts_term(token)

    def function_argument(self) -> Node:
        r"""The argument of `\sin 2x`: factors up to a sign, a slash or another function; `\sin\cos x` nests."""
        if self.at("-", "+"):
            return self.unary()
        node = self.power()
        factors = [node]
        while self._implicit() and self.token.kind != "function" and not self.at("(", "["):
            factors.append(self.power())
        return _product(factors)

    def unary(self) -> Node:
        sign = 1
        while self.at("-", "+"):
            sign = -sign if self.take().text == "-" else sign
        if self.at("\\pm", "\\mp"):
            return Node("pm", (self.take() and self.power(),))
        node = self.power()
        return node if sign == 1 else negative(node)

    def power(self) -> Node:
        node = self._postfix(self.atom())
        while self.at("^", "**"):
            self.take()
            if self.at("\\circ", "\\degree") or (self.at("{") and self.peek().text in ("\\circ", "\\degree")):
                node = self._degree(node)
                continue
            if self.at("T") or self.token.text == "\\prime":
                raise ParseError("a transpose or a derivative")
            exponent = self._exponent()
            if self.at("^", "**"):
                self.take()
                exponent = Node("pow", (exponent, self._tower()))
            node = self._postfix(Node("pow", (node, exponent)))
        return node

    def _tower(self) -> Node:
        """Towers bind to the right."""
        self.depth += 1
        if self.depth > 20:
            raise ParseError("a tower of exponents")
        exponent = self._exponent()
        if self.at("^", "**"):
            self.take()
            exponent = Node("pow", (exponent, self._tower()))
        self.depth -= 1
        return exponent

    def _degree(self, node: Node) -> Node:
        if self.take().text == "{":
            self.take()
            self.expect("}")
        return Node("degree", (node,))

    def _postfix(self, node: Node) -> Node:
        while self.at("!", "%", "\\degree", "'"):
            mark = self.take().text
            if mark == "!" and self.at("!"):
                raise ParseError("a double factorial")
            node = {
                "!": Node("function", (node,), "factorial"),
                "%": Node("percent", (node,)),
                "'": Node("function", (node,), "'()"),
                "\\degree": Node("degree", (node,)),
            }[mark]
        return node

    def integrand(self) -> tuple[Node, str]:
        r"""`x dx`, `\frac{dx}{x}` is not covered: the factors up to a d and the variable after it."""
        start, depth = self.position, 0
        for index in range(start, len(self.tokens) - 1):
            text = self.tokens[index].text
            depth += (text in ("(", "{", "[")) - (text in (")", "}", "]"))
            follows = self.tokens[index + 1].kind in ("letter", "greek")
            if depth == 0 and text == "d" and follows and self.tokens[index].kind == "letter":
                inner = Parser([*self.tokens[start:index], Token("end", "")], self.reopen_bars)
                inner.depth = self.depth
                body = inner.whole() if index > start else number(1)
                self.position = index + 2
                return body, self.tokens[index + 1].text
        raise ParseError("an integral without d and a variable")


def _product(factors: list[Node]) -> Node:
    return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))


def _starts_term(token: Token) -> bool:
    return token.kind in ("letter", "greek", "function", "number") or (
        token.kind in ("sign", "command") and token.text in _STARTS
    )
