"""What the offline teacher says about a scene of the miniature world, right and wrong.

A description lists every cell, so that it can be read back into the scene: the text teachers know nothing else.
"""

from __future__ import annotations

import random
import re

from data_tools.miniature.questions import LETTERS, LINES, WorldQuestion
from data_tools.miniature.scenes import COLOURS, FORMS, GRID, Block, Scene, Shape

_CELL = re.compile(r"(top|middle|bottom) (left|middle|right): (?:a|an) (\w+) (\w+)")
_BLOCK = re.compile(r"a grey bar or rectangle, (\d) high and (\d) wide, from row (\d) and column (\d)")
_OPENINGS = ("Looking at the image", "Looking closely at the image", "Checking the image")


def describe(scene: Scene) -> str:
    """A right description of a scene in the prompt's four parts, from which `read_description` reads it back."""
    cells = [f"- {LINES['row'][s.row]} {LINES['column'][s.column]}: a {s.colour} {s.form}" for s in scene.shapes]
    if scene.block:
        b = scene.block
        place = f"from row {b.row} and column {b.column}"
        cells.append(f"- a grey bar or rectangle, {b.height} high and {b.width} wide, {place}")
    return (
        f"Global scan: a {GRID} x {GRID} grid on shaded paper.\nDecomposition:\n" + "\n".join(cells) + "\n"
        "Linking: each thing keeps to the cells that are named; all other cells are empty.\n"
        f"Synthesis: a grid with {len(cells)} things in it."
    )


def read_description(text: str) -> Scene | None:
    """The scene that a description lists; None where there is none in `text`, or one that cannot be."""
    shapes = [
        Shape(LINES["row"].index(row), LINES["column"].index(column), colour, form)
        for row, column, colour, form in _CELL.findall(text)
    ]
    found = _BLOCK.search(text)
    block = Block(*(int(found[i]) for i in (3, 4, 1, 2))) if found else None
    try:
        return Scene(tuple(shapes), block) if shapes or block else None
    except ValueError:
        return None


def wrong_scene(scene: Scene, rng: random.Random) -> Scene:
    """A scene in which one thing differs: a shape's colour and form, or the extent of the block."""
    if scene.shapes or scene.block is None:
        place = rng.randrange(len(scene.shapes))
        old = scene.shapes[place]
        colour = rng.choice([c for c in COLOURS if c != old.colour])
        form = rng.choice([f for f in FORMS if f != old.form])
        shapes = list(scene.shapes)
        shapes[place] = Shape(old.row, old.column, colour, form)
        return Scene(tuple(shapes), scene.block)
    b = scene.block
    return Scene((), Block(0, 0, b.width, b.height) if b.width != b.height else Block(0, 0, 1, b.width % GRID + 1))


def reasoning(question: WorldQuestion, answer: str) -> str:
    """A long thought over the description, with a check, as a text teacher would write it."""
    if question.scene is None:
        return respond(question.thought, answer)
    check = "Let me check that again from the last one to the first: the same comes out."
    start = "The description lists the cells one by one. I go through them."
    return respond(f"{start} {question.thought} {check} So the answer is {answer}.", answer)


def anchored(question: WorldQuestion, answer: str, rng: random.Random, glance_share: float) -> str:
    """The thought as direct perception: the world's own chain of thought, with openings that vary."""
    thought = question.thought
    if question.glance is not None and rng.random() < glance_share:
        thought = question.glance
    return respond(thought.replace("Looking at the image", rng.choice(_OPENINGS), 1), answer)


def respond(thought: str, answer: str) -> str:
    """A whole response in the format that the rewards ask for."""
    return f"<think>{thought}</think><answer>{answer}</answer>"


def wrong_answer(question: WorldQuestion, rng: random.Random) -> str:
    """A wrong answer that looks like the gold one: another letter, the other of yes and no, another number."""
    if question.gold_kind == "choice":
        return rng.choice([letter for letter in LETTERS if letter != question.gold])
    if question.gold_kind == "yes/no":
        return "no" if question.gold == "yes" else "yes"
    if question.gold_kind == "expression":
        return r"7\pi"
    return str(rng.choice([n for n in range(41, 60) if str(n) != question.gold]))


def spoiled(fault: str, question: WorldQuestion, answer: str, rng: random.Random) -> str:
    """An anchored response with a fault that a filter must catch.

    Args:
        fault: that filter's name, one of FAULTS.

    Raises:
        ValueError: an unknown fault.
    """
    good = anchored(question, answer, rng, 0.0)
    thought = good[len("<think>") : good.index("</think>")]
    if fault == "leak":
        return respond(f"According to the description, {thought}", answer)
    if fault == "format":
        return good.replace("</think>", "", 1)
    if fault == "refusal":
        return "I'm sorry, but I can't help with rewriting this."
    if fault == "wrong_answer":
        return respond(thought, wrong_answer(question, rng))
    if fault == "too_few_anchors":
        return respond("It is plain that this comes out.", answer)
    if fault == "decorative_anchors":
        return respond("Let me look at the image again. It is plain that this comes out.", answer)
    if fault == "contradiction":
        return respond(f"{thought} Looking again at the {_denied(question.scene, rng)}.", answer)
    if fault == "repetition":
        return respond(f"{thought} " + "So I count them once more and then again. " * 8, answer)
    if fault == "too_long":
        words = " ".join("".join(rng.choices("abcdefghijklmnop", k=7)) for _ in range(400))
        return respond(f"{thought} {words}", answer)
    raise ValueError(f"unknown fault {fault!r}; there are {', '.join(FAULTS)}")


FAULTS = tuple(
    "leak format refusal wrong_answer too_few_anchors decorative_anchors contradiction repetition too_long".split()
)


def _denied(scene: Scene | None, rng: random.Random) -> str:
    """A thing of the scene in a colour that none of its kind has."""
    if scene is None or scene.block:
        return "purple rectangle"
    form = rng.choice(scene.shapes).form
    return f"{rng.choice(('purple', 'orange', 'black'))} {form}"
