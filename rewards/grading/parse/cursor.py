"""A place in a list of tokens, and the parts of LaTeX with a form of their own: environments and big operators."""

from rewards.grading.parse.lexer import Token
from rewards.grading.parse.matrices import determinant
from rewards.grading.parse.tree import Node, ParseError

CLOSERS = {
    "(": ")",
    "[": "]",
    "\\{": "\\}",
    "{": "}",
    "\\langle": "\\rangle",
    "\\lbrace": "\\rbrace",
    "\\lbrack": "\\rbrack",
}
BIG = {"\\int": "integral", "\\sum": "sum", "\\prod": "product"}
_ENVIRONMENTS = frozenset(
    "matrix pmatrix bmatrix Bmatrix vmatrix smallmatrix array cases aligned align gathered".split()
)


class Cursor:
    """Tokens and a position. `sequence`, `relation`, `sum`, `product`, `integrand` and `_exponent` are the parser's."""

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

    def _raw_argument(self) -> str:
        """The text of a subscript or a name under an arrow; it is only ever compared."""
        if not self.at("{", "("):
            return self.take().text
        closer = CLOSERS[self.take().text]
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
        side = (
            "+" if self.at("^") and self.peek().text == "+" else "-" if self.at("^") and self.peek().text == "-" else ""
        )
        self.position += 2 if side else 0
        self.expect("}")
        return Node("limit", (self.product(), point, Node("symbol", value=side)), variable)


def _one(row: Node) -> Node:
    return row.args[0] if len(row.args) == 1 else Node("bare", row.args)
