"""Look-backs ("looking at the triangle …") in a text: which there are, and whether they name and keep to what is there.

Rules of thumb on English text, made to be right when they speak: a claim counts as contradicting only where the
description says something else about the very same thing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?")
_SIGHT = "image|figure|picture|diagram|photo|photograph|graph|chart|plot|drawing|map|table|grid|scene|screenshot"
_LOOKING = (
    "look(?:ing|s)?|glanc(?:e|es|ing)|check(?:ing)?|inspect(?:ing)?|examin(?:e|ing)|zoom(?:ing)?|return(?:ing)?"
    "|turn(?:ing)?|go(?:ing)?|refer(?:ring)?|peer(?:ing)?|focus(?:ing)?"
)
_LOOKING_AT = rf"\b(?:{_LOOKING})\b[^.!?\n]{{0,24}}\b(?:at|to|in|on|into)\b"
_CHECKING = "check(?:ing)?|examin(?:e|ing)|inspect(?:ing)?|verify(?:ing)?|revisit(?:ing)?"
_CHECKING_IT = rf"\b(?:{_CHECKING})\s+the\b[^.!?\n]{{0,40}}?\b(?:{_SIGHT})\b"
_IN_IT = rf"\b(?:in|from|on)\s+(?:the|this)\s+(?:{_SIGHT})\b"
_SEEN = rf"\bI\s+(?:can\s+|clearly\s+)*see\b|\bthe\s+(?:{_SIGHT})\s+shows\b"
LOOK_BACK = re.compile(rf"{_LOOKING_AT}|{_CHECKING_IT}|{_IN_IT}|{_SEEN}", re.IGNORECASE)
# Words that name nothing in particular.
_COMMON = frozenset(
    """a an the this that these those it its i we you me my our there here what which who is are was were be been being
    has have had do does did can could will would shall should may might must not no yes and or but if so then
    than as at by for from in into of on onto off out over to up down with within without about all any both
    each every more most much many some such only same very too also just now again back once let lets me's
    let's i'll i'm it's that's there's look looking looks glance glancing check checking inspect inspecting
    examine examining see seeing seen zoom zooming focus focusing return returning turn turning go going refer
    referring verify verifying revisit closely carefully once clearly sure confirm make image figure picture
    diagram photo photograph graph chart plot drawing map table grid scene screenshot global scan decomposition
    linking synthesis shows show shown given thing things part parts detail details one answer question step top
    bottom left right middle center centre above below first second third next last side where when how why wait
    okay ok hmm row column good""".split()
)
_COLOURS = (
    "red green blue yellow orange purple violet pink brown black white grey gray cyan magenta teal navy gold silver "
    "beige turquoise maroon"
)
COLOURS = frozenset(_COLOURS.split())
_PAIR = re.compile(rf"\b({'|'.join(COLOURS)})\s+([a-z]{{3,}})\b", re.IGNORECASE)
_VALUE = r"(-?\d++(?:\.\d++)?)"
# AB = 5, angle A is 30, ∠ABC = 40°: capital labels, as geometry uses them. The kind of thing is part of the label.
_KIND = r"(?P<kind>\bangle\s+|∠\s*|\blength\s+(?:of\s+)?)?"
_LABEL = r"\b(?P<label>[A-Z]{1,3})"
_EQUALS = r"(?:=|\bis\b|\bequals\b|\bmeasures\b)"
_GOES_ON = r"[\d.]*\s*(?:[-+*/^]|times|plus|minus)"
_LABELLED = re.compile(rf"{_KIND}{_LABEL}\s*{_EQUALS}\s*(?P<value>{_VALUE})(?!{_GOES_ON})")


@dataclass(frozen=True)
class Anchors:
    """The look-backs of a text: `total` sentences, of which `grounded` name something that the description has, and
    `contradiction`, the first claim that the description denies, or None."""

    total: int
    grounded: int
    contradiction: str | None


def find_anchors(thought: str, description: str) -> Anchors:
    """Counts the look-backs of `thought` and holds them against the description of the image."""
    sentences = [sentence for sentence in _SENTENCE.split(thought) if LOOK_BACK.search(sentence)]
    there = content_words(description)
    grounded = sum(bool(content_words(sentence) & there) for sentence in sentences)
    claims = (contradiction(sentence, description) for sentence in sentences)
    return Anchors(len(sentences), grounded, next((claim for claim in claims if claim), None))


def content_words(text: str) -> set[str]:
    """The words of a text that can name something, in lower case and without a plural s; numbers too."""
    return {_singular(word) for word in _WORD.findall(text.lower())} - _COMMON


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def contradiction(sentence: str, description: str) -> str | None:
    """A colour or a labelled value of `sentence` for which the description has others only, as readable text; None
    where there is no such claim."""
    colours = _by_thing(_colour_claims(description))
    for thing, colour in _colour_claims(sentence):
        if thing in colours and colour not in colours[thing]:
            return f"{colour} {thing}, where the description has {', '.join(sorted(colours[thing]))}"
    values = _by_thing(_value_claims(description))
    for thing, value in _value_claims(sentence):
        if thing in values and value not in values[thing]:
            return f"{thing} = {value}, where the description has {', '.join(sorted(values[thing]))}"
    return None


def _colour_claims(text: str) -> list[tuple[str, str]]:
    claims = ((_singular(noun.lower()), colour.lower().replace("gray", "grey")) for colour, noun in _PAIR.findall(text))
    return [(noun, colour) for noun, colour in claims if noun not in _COMMON | COLOURS]


def _value_claims(text: str) -> list[tuple[str, str]]:
    found = []
    for match in _LABELLED.finditer(text):
        angle = (match["kind"] or "").strip().lower() in ("angle", "∠")
        found.append((f"{'angle ' if angle else ''}{match['label']}", f"{float(match['value']):g}"))
    return found


def _by_thing(claims: list[tuple[str, str]]) -> dict[str, set[str]]:
    things: dict[str, set[str]] = {}
    for thing, value in claims:
        things.setdefault(thing, set()).add(value)
    return things
