r"""Numbers and names, which are read from the tokens alone: mixed numbers, bases, repeating decimals, subscripts."""

import re
from fractions import Fraction

from rewards.grading.parse import builders
from rewards.grading.parse.tokens import Token, Tokens
from rewards.grading.parse.tree import Node, ParseError, number

_BASES: dict[str, str] = dict(
    zip(
        "two three four five six seven eight nine ten eleven twelve sixteen".split(),
        "2 3 4 5 6 7 8 9 10 11 12 16".split(),
        strict=True,
    )
)


def numeral(tokens: Tokens, token: Token) -> Node:
    r"""The number that begins with `token`, which is already taken: `12`, `204_5`, `0.1\overline{6}`, `2\frac{1}{3}`.

    Raises:
        ParseError: a number of too many digits, or a period that is no digits.
    """
    node = builders.numeral(token.text)
    if tokens.at("_"):
        tokens.take()
        base = tokens.raw_argument().removeprefix("base").strip()
        base = _BASES.get(base, base)
        if not re.fullmatch("[1-9][0-9]?|[A-Za-z]", base):
            raise ParseError(f"a numeral whose base is {base!r:.40}")
        return node if base == "10" else Node("base", name=f"{token.text}_{base}")
    if "." in token.text:
        if tokens.at("\\overline", "\\bar"):
            tokens.take()
            return builders.repeating(token.text, tokens.raw_argument())
        return node
    whole = node.value
    if whole is not None and whole.denominator == 1 and (part := _proper_fraction(tokens)):
        return number(whole + part)
    return node


def _proper_fraction(tokens: Tokens) -> Fraction | None:
    r"""The fraction of a mixed number: `2 1/3`, `2\frac{1}{3}`, `2\frac13`. None: what follows is none."""
    token = tokens.token
    texts = [tokens.peek(ahead).text for ahead in range(7)]
    if token.kind == "number" and token.spaced and texts[1] == "/" and tokens.peek(2).kind == "number":
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
    tokens.position += used
    return Fraction(int(top), int(bottom))


def of_figure(tokens: Tokens) -> str:
    r"""Takes the name of an angle, triangle or circle: `ABC`, `1`, `\alpha`, `{ABC}`. ParseError: there is none."""
    if tokens.at("{"):
        return tokens.raw_argument()
    if tokens.token.kind in ("number", "greek", "word"):
        return tokens.take().text
    letters = ""
    while tokens.token.kind == "letter" and (not letters or tokens.token.text.isupper()):
        letters += with_marks(tokens, tokens.take().text)
    if not letters:
        raise ParseError("a figure without a name")
    return letters


def with_marks(tokens: Tokens, name: str) -> str:
    """The name with the subscript and the primes that follow it."""
    if tokens.at("_"):
        tokens.take()
        name += "_" + tokens.raw_argument()
    while tokens.at("'", "\\prime") or (tokens.at("^") and tokens.peek().text in ("\\prime", "'")):
        name += "" if tokens.take().text == "^" else "'"
    return name
