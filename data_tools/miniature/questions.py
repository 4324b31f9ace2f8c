r"""Question families of the miniature world. Each family draws its gold answer first and then a scene that has it, so
that golds are balanced per question text and the text alone says little.

Where there is something to enumerate a question has two chains of thought, both anchored in the image: `thought` looks
at every cell before it concludes; `glance` concludes at once and is right less often. A cold start on a mixture of the
two leaves reinforcement something to find out: that looking pays.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from data_tools.miniature.scenes import COLOURS, FORMS, GRID, Block, Cell, Scene, place

LETTERS = "ABCD"
CELLS = "abcdefghi"  # names of the cells in reading order
LINES = {"row": ("top", "middle", "bottom"), "column": ("left", "middle", "right")}
COLOUR_NAMES = tuple(COLOURS)
# One order of the options in all questions: looking a letter up in the text is not what this world is about.
OPTIONS = " ".join(f"{letter}) {colour}" for letter, colour in zip(LETTERS, COLOUR_NAMES, strict=True))
MAX_SHAPES = 5  # in a counting question: keeps responses well within the 80 tokens of the recipe
# What an answer needs of the image, from least to most: nothing, as the text says it all; to see whether this image is
# as images mostly are; one cell; the whole board; a second look at a place that the first look finds; a look after a
# calculation and a statement about another image.
NEEDS = ("nothing", "prior", "cell", "board", "second look", "look back")


@dataclass(frozen=True)
class WorldQuestion:
    """A question about a scene (None: text-only), its gold answer, and the thought that leads there.

    `kind` is its family. `gold_kind` is the form of the gold: integer, fraction, expression, choice or yes/no. `text`
    names the options where there are any. `glance` is the short thought where the family has one, else None.
    `options`: the texts of a choice, A first. `cells`: what the answer speaks of and is read from, in reading order:
    those of the shapes that are counted or compared, of the shape that is asked for, or the white ones. None where
    there is nothing of the kind to be seen ("How many circles?" 0). `need` is what the answer needs of the image, one
    of NEEDS.
    """

    kind: str
    gold_kind: str
    text: str
    gold: str
    thought: str
    scene: Scene | None
    glance: str | None = None
    options: tuple[str, ...] = ()
    cells: tuple[Cell, ...] = ()
    need: str = "board"

    def response(self, *, glance: bool = False) -> str:
        """The worked response: with the short thought where `glance` asks for one that there is, else the long one."""
        thought = self.glance if glance and self.glance else self.thought
        return f"<think>{thought}</think><answer>{self.gold}</answer>"


Family = Callable[[random.Random], WorldQuestion]  # draws one question
_ANCHOR = re.compile(r"(Looking|Glancing)( back| again)? at [^:]+: ")


def without_anchors(response: str) -> str:
    """A response without the words that refer to the image; what it says about the board stays."""
    return _ANCHOR.sub("", response)


def latex_fraction(value: Fraction) -> str:
    """The fraction in LaTeX, in lowest terms; a whole number without a denominator."""
    return str(value.numerator) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def latex_pi(factor: int) -> str:
    """The multiple of pi in LaTeX, for a factor of at least 1."""
    return r"\pi" if factor == 1 else rf"{factor}\pi"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def cells_of(scene: Scene, attribute: str, *values: object) -> tuple[Cell, ...]:
    """The cells of the shapes whose attribute is one of the values."""
    return tuple((shape.row, shape.column) for shape in scene.shapes if getattr(shape, attribute) in values)


def _white(scene: Scene) -> tuple[Cell, ...]:
    return tuple(sorted(scene.block.cells())) if scene.block else ()


def listing(scene: Scene, attribute: str, note: Callable[[str], str] = lambda value: "") -> str:
    """Colour or form of every cell, each under its letter, "-" for an empty one: each word looks at one place.

    `note` adds what is known after each shape.
    """
    values = {(shape.row, shape.column): getattr(shape, attribute) for shape in scene.shapes}
    seen = {cell: f"{value}{note(value)}" for cell, value in values.items()}
    cells = [(row, column) for row in range(GRID) for column in range(GRID)]
    listed = " ".join(f"{name} {seen.get(cell, '-')}" for name, cell in zip(CELLS, cells, strict=True))
    return f"Looking at the image: {listed}."


def glancing(conclusion: str) -> str:
    return f"Glancing at the image: {conclusion}"


def running_count(*counted: str) -> Callable[[str], str]:
    """Numbers the shapes that have one of these colours or forms, each on its own."""
    counts: Counter[str] = Counter()

    def note(value: str) -> str:
        counts[value] += 1
        return f" {counts[value]}" if value in counted else ""

    return note


def running_share(colour: str) -> Callable[[str], str]:
    """After each shape: how many of this colour so far / how many shapes so far."""
    hits = total = 0

    def note(value: str) -> str:
        nonlocal hits, total
        hits, total = hits + (value == colour), total + 1
        return f" {hits}/{total}"

    return note


def colour_letter(colour: str) -> str:
    """The letter of a colour among OPTIONS."""
    return LETTERS[COLOUR_NAMES.index(colour)]


def colour_question(
    kind: str,
    what: str,
    colour: str,
    thought: str,
    scene: Scene,
    cells: tuple[Cell, ...],
    glance: str | None = None,
    need: str = "board",
) -> WorldQuestion:
    """Which colour `what` has, as a choice."""
    text, gold = f"What colour is {what}? {OPTIONS}", colour_letter(colour)
    return WorldQuestion(kind, "choice", text, gold, thought, scene, glance, COLOUR_NAMES, cells, need)


def with_colour(rng: random.Random, colour: str, count: int) -> Scene:
    """A scene with so many shapes of a colour (0 to 4) and at least one of another, two to MAX_SHAPES in all."""
    others = [c for c in COLOUR_NAMES if c != colour]
    colours = [colour] * count + [rng.choice(others) for _ in range(rng.randint(max(1, 2 - count), MAX_SHAPES - count))]
    return place(rng, [(c, rng.choice(FORMS)) for c in colours])


def figures(rng: random.Random, forms: list[str]) -> list[tuple[str, str]]:
    return [(rng.choice(COLOUR_NAMES), form) for form in forms]


def count_form(rng: random.Random) -> WorldQuestion:
    """How many circles (squares, triangles) there are: 0 to 4."""
    form, count = rng.choice(FORMS), rng.randint(0, 4)
    others = [f for f in FORMS if f != form]
    forms = [form] * count + [rng.choice(others) for _ in range(rng.randint(max(1, 2 - count), MAX_SHAPES - count))]
    scene = place(rng, figures(rng, forms))
    seen = f"I see {plural(count, form)}."
    thought = f"{listing(scene, 'form', running_count(form))} {seen}"
    text, cells = f"How many {form}s?", cells_of(scene, "form", form)
    return WorldQuestion("count_form", "integer", text, str(count), thought, scene, glancing(seen), cells=cells)


def count_colour(rng: random.Random) -> WorldQuestion:
    """How many shapes are of a colour: 0 to 4."""
    colour, count = rng.choice(COLOUR_NAMES), rng.randint(0, 4)
    scene = with_colour(rng, colour, count)
    seen = f"I see {count} {colour}."
    thought = f"{listing(scene, 'colour', running_count(colour))} {seen}"
    text, cells = f"How many {colour} shapes?", cells_of(scene, "colour", colour)
    return WorldQuestion("count_colour", "integer", text, str(count), thought, scene, glancing(seen), cells=cells)


def compare(rng: random.Random) -> WorldQuestion:
    """Whether one form is there more often than another: yes or no, each in half of the questions."""
    more, less = rng.sample(FORMS, 2)
    yes = rng.random() < 0.5
    high, low = rng.choice([(2, 1), (3, 1), (3, 2), (1, 0), (2, 0)])
    counts = (high, low) if yes else (low, high)
    rest = [f for f in FORMS if f not in (more, less)] * rng.randint(0, 1)
    scene = place(rng, figures(rng, [more] * counts[0] + [less] * counts[1] + rest))
    seen = f"I see {plural(counts[0], more)} and {plural(counts[1], less)}."
    thought = f"{listing(scene, 'form', running_count(more, less))} {seen}"
    gold = "yes" if yes else "no"
    text = f"Are there more {more}s than {less}s?"
    cells = cells_of(scene, "form", more, less)
    return WorldQuestion("compare", "yes/no", text, gold, thought, scene, glancing(seen), cells=cells)


def position(rng: random.Random) -> WorldQuestion:
    """The colour of the only shape in a row or column, as a choice; the other lines hold distractors."""
    axis, line = rng.choice(("row", "column")), rng.randrange(GRID)
    scene = place(rng, figures(rng, [rng.choice(FORMS) for _ in range(rng.randint(3, 6))]))
    found = [shape for shape in scene.shapes if getattr(shape, axis) == line]
    if len(found) != 1:
        return position(rng)
    colour, where = found[0].colour, f"{LINES[axis][line]} {axis}"
    seen = f"The {where} has {colour}, {colour_letter(colour)}."
    thought = f"{listing(scene, 'colour')} {seen}"
    what, cells = f"the shape in the {where}", cells_of(scene, axis, line)
    return colour_question("position", what, colour, thought, scene, cells, glancing(seen))


def _block_scene(rng: random.Random, height: int, width: int) -> Scene:
    block = Block(rng.randint(0, GRID - height), rng.randint(0, GRID - width), height, width)
    free = GRID * GRID - height * width
    return place(rng, figures(rng, [rng.choice(FORMS) for _ in range(rng.randint(0, min(3, free)))]), block)


def rectangle(rng: random.Random) -> WorldQuestion:
    """Area, perimeter or share of the grid of a white rectangle. Its kind is one of area, perimeter, grid_share."""
    height, width = rng.randint(1, GRID), rng.randint(1, GRID)
    scene = _block_scene(rng, height, width)
    seen = f"Looking at the image: the rectangle is {width} wide and {height} tall."
    area, perimeter = width * height, 2 * (width + height)
    kind = rng.choice(("area", "perimeter", "grid_share"))
    if kind == "area":
        text, gold, step = "What is the area of the rectangle?", str(area), f"{width} * {height} = {area}."
    elif kind == "perimeter":
        text, gold = "What is the perimeter of the rectangle?", str(perimeter)
        step = f"2 * {width + height} = {perimeter}."
    else:
        text, gold = "What fraction of the grid is white?", latex_fraction(Fraction(area, GRID * GRID))
        step = f"{width} * {height} = {area} of {GRID * GRID}."
    gold_kind = "fraction" if kind == "grid_share" else "integer"
    return WorldQuestion(kind, gold_kind, text, gold, f"{seen} {step}", scene, cells=_white(scene))


def circle(rng: random.Random) -> WorldQuestion:
    """Area or circumference of a circle whose radius, in cells, a white bar shows."""
    radius = rng.randint(1, GRID)
    scene = _block_scene(rng, *rng.choice(((1, radius), (radius, 1))))
    what = rng.choice(("area", "circumference"))
    gold = latex_pi(radius * radius if what == "area" else 2 * radius)
    step = f"{radius} * {radius}" if what == "area" else f"2 * {radius}"
    thought = f"Looking at the image: the bar is {radius} long. {step} times pi."
    text = f"The bar is the radius of a circle. What is its {what}?"
    return WorldQuestion(f"circle_{what}", "expression", text, gold, thought, scene, cells=_white(scene))


def shape_share(rng: random.Random) -> WorldQuestion:
    """Which fraction of the shapes is of a colour, in lowest terms."""
    colour = rng.choice(COLOUR_NAMES)
    shares = [Fraction(1, 2), *(Fraction(n, d) for n, d in ((1, 3), (2, 3), (1, 4), (3, 4), (1, 5), (2, 5), (3, 5)))]
    share = rng.choice(shares)
    total = rng.choice([n for n in range(2, MAX_SHAPES + 1) if n % share.denominator == 0])
    count = int(share * total)
    others = [c for c in COLOUR_NAMES if c != colour]
    colours = [colour] * count + [rng.choice(others) for _ in range(total - count)]
    scene = place(rng, [(c, rng.choice(FORMS)) for c in colours])
    thought, short = listing(scene, "colour", running_share(colour)), glancing(f"I see {count} of {total}.")
    text = f"What fraction of the shapes is {colour}?"
    cells = cells_of(scene, "colour", *COLOUR_NAMES)  # of all shapes: the share is one of them
    return WorldQuestion("shape_share", "fraction", text, latex_fraction(share), thought, scene, short, cells=cells)


def arithmetic(rng: random.Random) -> WorldQuestion:
    """A sum, difference or product, without a scene: it keeps the image-free path of training in use."""
    sign, a, b = rng.choice("+-*"), rng.randint(1, 20), rng.randint(1, 20)
    if sign == "-":
        a, b = max(a, b), min(a, b)
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    sum_text = f"{a} {sign} {b}"
    text, thought = f"What is {sum_text}?", f"{sum_text} = {result}."
    return WorldQuestion("arithmetic", "integer", text, str(result), thought, None, need="nothing")
