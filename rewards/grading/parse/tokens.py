"""Tokens, and a place in a list of them: what the parser holds and moves along."""

from dataclasses import dataclass
from typing import Literal

from rewards.grading.parse.tree import ParseError

TokenKind = Literal["number", "command", "letter", "function", "greek", "word", "sign", "end"]
MAX_NAME_TOKENS = 40
CLOSERS = {
    "(": ")",
    "[": "]",
    "\\{": "\\}",
    "{": "}",
    "\\langle": "\\rangle",
    "\\lbrace": "\\rbrace",
    "\\lbrack": "\\rbrack",
}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a formula; `spaced`: there is white space before it."""

    kind: TokenKind
    text: str
    spaced: bool = False


class Tokens:
    """A list of tokens that ends with one of kind "end", and a position that never passes that end."""

    __slots__ = ("items", "position")

    def __init__(self, items: list[Token]) -> None:
        self.items = items
        self.position = 0

    @property
    def token(self) -> Token:
        """The token at the position."""
        return self.items[self.position]

    @property
    def previous(self) -> Token:
        """The token before the position."""
        return self.items[self.position - 1]

    def peek(self, ahead: int = 1) -> Token:
        """The token so many places ahead; near the end, the end."""
        return self.items[min(self.position + ahead, len(self.items) - 1)]

    def take(self) -> Token:
        """Returns the token at the position and moves on."""
        token = self.items[self.position]
        if self.position + 1 < len(self.items):
            self.position += 1
        return token

    def at(self, *texts: str) -> bool:
        """Is the token at the position one of these signs or commands?"""
        token = self.items[self.position]
        return token.text in texts and token.kind in ("sign", "command")

    def expect(self, *texts: str) -> Token:
        """Takes one of these signs or commands. ParseError: something else is there."""
        if not self.at(*texts):
            raise ParseError(f"expected {texts[0]!r}, found {self.token.text or 'the end'!r}")
        return self.take()

    def raw_argument(self) -> str:
        """Takes a subscript, or a name under an arrow, as text: it is only ever compared."""
        if not self.at("{", "("):
            return self.take().text
        closer = CLOSERS[self.take().text]
        parts = []
        while not self.at(closer):
            if self.token.kind == "end" or len(parts) > MAX_NAME_TOKENS:
                raise ParseError("a name that does not end")
            parts.append(self.take().text)
        self.take()
        return "".join(parts)

    def split_number(self) -> None:
        """Cuts the number at the position after its first digit, as LaTeX reads it: the 12 of a fraction is 1 and 2."""
        token = self.token
        self.items[self.position : self.position + 1] = [
            Token("number", token.text[0], token.spaced),
            Token("number", token.text[1:]),
        ]
