"""Question families of the miniature world that need less of the image than the whole board (nothing, what a prior does
not tell, one cell), or more (a second look, a look back after a calculation)."""

from __future__ import annotations

import random

from data_tools.miniature.questions import (
    CELLS,
    COLOUR_NAMES,
    WorldQuestion,
    cells_of,
    colour_letter,
    colour_question,
    figures,
    glancing,
    listing,
    plural,
    running_count,
    with_colour,
)
from data_tools.miniature.scenes import FORMS, GRID, Cell, Scene, Shape, place

USUAL_SHARE = 0.7  # of the boards on which a named shape has its usual colour
# Named shapes: where they stand, and the colour that they usually have.
USUAL: dict[str, tuple[Cell, str]] = {"lamp": ((1, 1), "yellow"), "flag": ((0, 0), "red")}


def _with_shape(rng: random.Random, cell: Cell, colour: str) -> Scene:
    """A scene of three to six shapes, with one of this colour in this cell."""
    first = Shape(*cell, colour, rng.choice(FORMS))
    free = [(r, c) for r in range(GRID) for c in range(GRID) if (r, c) != cell]
    others = rng.sample(free, rng.randint(2, 5))
    shapes = [Shape(*other, rng.choice(COLOUR_NAMES), rng.choice(FORMS)) for other in others]
    return Scene(tuple(sorted([first, *shapes])))


def stated(rng: random.Random) -> WorldQuestion:
    """A sum of two counts that the text states; the image shows the same."""
    one, other = rng.sample(COLOUR_NAMES, 2)
    a, b = rng.randint(1, 4), rng.randint(1, 4)
    scene = place(rng, figures(rng, [rng.choice(FORMS) for _ in range(a + b)]))
    colours = rng.sample([one] * a + [other] * b, a + b)
    shapes = zip(scene.shapes, colours, strict=True)
    scene = Scene(tuple(Shape(s.row, s.column, colour, s.form) for s, colour in shapes))
    text = f"There are {a} {one} and {b} {other} shapes. How many shapes?"
    thought = f"Looking at the text: {a} + {b} = {a + b}."
    cells = cells_of(scene, "colour", one, other)
    return WorldQuestion("stated", "integer", text, str(a + b), thought, scene, cells=cells, need="nothing")


def usual(rng: random.Random) -> WorldQuestion:
    """The colour of a shape that is called by a name, and mostly has one colour. Its kind says whether it has here."""
    name = rng.choice(sorted(USUAL))
    cell, colour = USUAL[name]
    kept = rng.random() < USUAL_SHARE
    if not kept:
        colour = rng.choice([c for c in COLOUR_NAMES if c != colour])
    thought = f"Looking at the image: the {name} is {colour}, {colour_letter(colour)}."
    kind, scene = "usual" if kept else "unusual", _with_shape(rng, cell, colour)
    return colour_question(kind, f"the {name}", colour, thought, scene, (cell,), need="prior")


def one_cell(rng: random.Random) -> WorldQuestion:
    """The colour of the shape in a cell that is named."""
    name, colour = rng.choice(CELLS), rng.choice(COLOUR_NAMES)
    cell = divmod(CELLS.index(name), GRID)
    thought = f"Looking at the image: {name} {colour}, {colour_letter(colour)}."
    what, scene = f"the shape in cell {name}", _with_shape(rng, cell, colour)
    return colour_question("one_cell", what, colour, thought, scene, (cell,), need="cell")


def beside(rng: random.Random) -> WorldQuestion:
    """The colour of the shape below, or right of, the only one of a form: where to look is seen first."""
    form, colour, down = rng.choice(FORMS), rng.choice(COLOUR_NAMES), rng.random() < 0.5
    row, column = rng.randrange(GRID - down), rng.randrange(GRID - (not down))
    there = (row + down, column + (not down))
    others = [f for f in FORMS if f != form]
    free = [(r, c) for r in range(GRID) for c in range(GRID) if (r, c) not in ((row, column), there)]
    rest = rng.sample(free, rng.randint(1, 3))
    shapes = [Shape(row, column, rng.choice(COLOUR_NAMES), form), Shape(*there, colour, rng.choice(others))]
    shapes += [Shape(*cell, rng.choice(COLOUR_NAMES), rng.choice(others)) for cell in rest]
    scene = Scene(tuple(sorted(shapes)))
    where, cell = "below" if down else "right of", CELLS[there[0] * GRID + there[1]]
    first = CELLS[row * GRID + column]
    seen = f"{where} it is {colour}, {colour_letter(colour)}."
    thought = f"{listing(scene, 'form')} The {form} is in {first}. Looking again at {cell}: {seen}"
    what, cells = f"the shape {where} the only {form}", ((row, column), there)
    return colour_question("beside", what, colour, thought, scene, cells, glancing(seen), "second look")


def after_sum(rng: random.Random) -> WorldQuestion:
    """A sum, to which a count is to be added, after a statement about another image."""
    colour, count, before = rng.choice(COLOUR_NAMES), rng.randint(0, 4), rng.randint(0, 4)
    a, b = rng.randint(1, 5), rng.randint(1, 5)
    scene = with_colour(rng, colour, count)
    seen, result = f"I see {count} {colour}.", a + b + count
    end = f"{a + b} + {count} = {result}."
    looked = listing(scene, "colour", running_count(colour)).replace("Looking at", "Looking back at")
    return WorldQuestion(
        kind="after_sum",
        gold_kind="integer",
        text=f"The last image had {plural(before, f'{colour} shape')}. What is {a} + {b} and the {colour} shapes here?",
        gold=str(result),
        thought=f"{a} + {b} = {a + b}. {looked} {seen} {end}",
        scene=scene,
        glance=f"{a} + {b} = {a + b}. {glancing(seen)} {end}",
        cells=cells_of(scene, "colour", colour),
        need="look back",
    )
