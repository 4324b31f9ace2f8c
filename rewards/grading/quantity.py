"""Normalised text → a tree and its unit; both are what the grader compares."""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from rewards.grading.compare.reshape import named
from rewards.grading.compare.scalars import computed
from rewards.grading.parse.parser import parse
from rewards.grading.parse.residues import residue
from rewards.grading.parse.tree import Node, ParseError, number, show, symbols
from rewards.grading.text import compound, units, words


@dataclass(frozen=True)
class Quantity:
    """A tree with its unit, if any. `product` is the reading of the whole without a unit: 3 s as 3 times s."""

    tree: Node
    unit: units.Unit | None
    product: Node | None = None

    def __str__(self) -> str:
        return show(self.tree) + (f" {self.unit.text}" if self.unit else "")


_HALVES_OF_A_DAY = ((("am", 1),), (("pm", 1),))
# A spelled number and what it counts; not fractions and scales (two fifths, two million)
_COUNTED = re.compile(
    r"([A-Za-z]+(?:-[a-z]+)?) (?!.*(?:th|rd|nd)s?$|hal|quart|hundred|thousand|.*illion|doz)([a-z]{3,})"
)


def spelled(text: str) -> tuple[str | None, str]:
    """The number that `five`, `twenty-one` or `five shapes` spells, and what it counts; (None, ""): there is none."""
    counted = _COUNTED.fullmatch(text)
    number_words, unit = counted.groups() if counted else (text, "")
    value = words.spelled_number(number_words)
    return (value, unit) if value else (words.spelled_number(text), "")


@lru_cache(maxsize=65536)
def quantity(text: str) -> Quantity | None:
    """The tree of a normalised answer, and its unit; None: `text` is no mathematics."""
    text = compound.rewritten(text)
    if compound.is_several(text):
        return None
    if (residues_of := residue(text)) is not None:
        return Quantity(residues_of, None)
    value, unit = spelled(text)
    if value:
        return Quantity(number(int(value)), units.read_unit(unit) if unit else None)
    whole = _tree(text)
    rest, unit, scale = units.split_unit(text)
    if unit and compound.is_no_count(unit.text):
        return None
    tree = _tree(rest) if rest and rest != text else None
    if tree is None or (whole is not None and (symbols(named(tree).value) or unit is None)):
        return None if whole is None else Quantity(whole, None)
    if unit and unit.dimension in _HALVES_OF_A_DAY and tree.op == "ratio":
        return Quantity(Node("ratio", tree.args, unit.dimension[0][0]), None)
    if scale != 1:
        tree = _multiplied(tree, number(Fraction(scale)))
    return Quantity(tree, unit, whole)


def _multiplied(tree: Node, scale: Node) -> Node:
    """The tree times the scale; of x = 3 million, the right side."""
    if tree.op == "relation" and tree.name == "=":
        return Node("relation", (tree.args[0], Node("mul", (tree.args[1], scale))), "=")
    return Node("mul", (tree, scale))


def _tree(text: str) -> Node | None:
    try:
        return _parsed(text)
    except ParseError:
        return None


_AND_OR = r",?\s+(?:and|or|AND|OR|et|und|или)\s+"
_GLUED_AND_OR = r"(?<=[)\]}0-9])(?:and|or)\s*(?=[^a-z])"
_LOGICAL = r"\\(?:land|lor|wedge|vee)(?![A-Za-z])"
_CONJUNCTION = re.compile(rf"{_AND_OR}|\s*[;]\s*|{_GLUED_AND_OR}|{_LOGICAL}")
_SPACED_THOUSANDS = re.compile(r"-?[1-9][0-9]{0,2}(?: [0-9]{3})+(?:\.[0-9]+)?")
_IN_WORDS = r"(?=[^=]*[A-Za-z]{3})[A-Za-z][A-Za-z0-9 .'°]*"  # area of triangle 2
_IN_SIGNS = r"[^=<>0-9+*^{}-]*(?:\{[^{}]*\}[^=<>0-9+*^{}]*)?"
_LEFT_NAME = re.compile(rf"^(?:{_IN_WORDS}|{_IN_SIGNS})(?:=|\\approx|\\in(?![A-Za-z]))\s*(?=\S)(?![=<>])")


def is_spaced(text: str) -> bool:
    """Is the text a number whose thousands are set apart by spaces, such as `12 345`?"""
    return _SPACED_THOUSANDS.fullmatch(text) is not None


def _parsed(text: str) -> Node:
    """The tree of a formula, its words for "and" and "or" as commas; a name that cannot be read is dropped."""
    if is_spaced(text):
        text = text.replace(" ", "")
    text = _CONJUNCTION.sub(" , ", text)
    try:
        return parse(text)
    except ParseError:
        rest = compound.without_words(_LEFT_NAME.sub("", text))
        if rest == text or not rest or compound.says_more(text.removesuffix(rest)):
            raise
        return parse(rest)


def exact_number(text: str) -> Fraction | None:
    """The rational number that `text` is; None: it is none, or too big to be computed."""
    found = quantity(text)
    return None if found is None else computed(named(found.tree).value)


def written_once(answer: str) -> str:
    """The first writing of a number that is written twice, such as `7/2 or 3.5`; any other answer as it is."""
    parts = re.split(r"\bor\b", answer)
    values = {exact_number(part.strip()) for part in parts} if len(parts) > 1 else {None}
    return parts[0].strip() if len(values) == 1 and None not in values else answer
