r"""Answers of a division with remainder: `7 remainder 3`, `7 R 3`, and residues: `3 (mod 7)`, `x \equiv 3 \pmod{7}`."""

import re

from rewards.grading.parse.parser import parse
from rewards.grading.parse.tree import Node, ParseError, number

_MODULUS = r"([0-9]{1,9}|[a-z])"
_IN_BRACES = rf"\s*\{{?\s*{_MODULUS}\s*\}}?"
_MOD_BRACKETED = rf"\(\s*(?:\\b?mod|mod(?:ulo)?){_IN_BRACES}\s*\)"
_MOD_PLAIN = rf"\\pmod{_IN_BRACES}|(?:\\b?mod|\bmod(?:ulo)?){_IN_BRACES}"
_RESIDUE = re.compile(rf"(.+?)\s*(?:{_MOD_BRACKETED}|{_MOD_PLAIN})")
_WHOLE = r"(-?[0-9]{1,15})"
_QUOTIENT_IS = r"(?:(?:the\s+)?quotient(?:\s+(?:is|of))?:?\s*)?"
_WITH_REMAINDER = r"(?:,|and)?\s*(?:with\s+)?(?:a\s+)?\b(?:remainder(?:\s+of)?|rem\.?)"
_REMAINDER = re.compile(rf"{_QUOTIENT_IS}{_WHOLE}\s*(?:{_WITH_REMAINDER}|(?<=\s)r|R|余)\s*{_WHOLE}")


def residue(text: str) -> Node | None:
    """The tree of a quotient with its remainder, or of residues and their modulus; None: the text is neither.

    Two residues are the same where their moduli are the same and they differ by a multiple of it.
    """
    if match := _REMAINDER.fullmatch(text):
        return Node("remainder", (number(int(match[1])), number(int(match[2]))))
    match = _RESIDUE.fullmatch(text) if "mod" in text else None
    if match is None:
        return None
    try:
        return _modulo(parse(match[1].replace("≡", r"\equiv ")), parse(match[2] or match[3] or match[4]))
    except ParseError:
        return None


def _modulo(node: Node, modulus: Node) -> Node:
    if node.op == "relation" and node.name == "=" and len(node.args) == 2:
        return Node("relation", (node.args[0], _modulo(node.args[1], modulus)), "=")
    if node.op in ("bare", "set"):
        return Node("bare", tuple(_modulo(arg, modulus) for arg in node.args))
    if node.value is not None and modulus.value and node.value.denominator == 1:
        node = number(node.value % modulus.value)
    return Node("residue", (node, modulus))
