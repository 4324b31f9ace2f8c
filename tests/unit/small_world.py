"""A small miniature world that several files of tests look at, and what its questions say by an independent reading."""

import functools
import re
from collections.abc import Callable
from fractions import Fraction

from data_tools.miniature.questions import WorldQuestion, latex_fraction, latex_pi
from data_tools.miniature.scenes import Block, Cell, Shape
from data_tools.miniature.world import WorldConfig, make_questions

SMALL = WorldConfig(pretrain=1000, sft_train=900, sft_val=60, rl_train=300, rl_val=60, test=240)
USUAL = {"lamp": (1, 1, "yellow"), "flag": (0, 0, "red")}  # row, column, and the colour that it mostly has


@functools.cache
def small_world() -> dict[str, list[WorldQuestion]]:
    return make_questions(SMALL)


def all_questions() -> list[WorldQuestion]:
    return [question for split in small_world().values() for question in split]


def at(q: WorldQuestion, row: int, column: int) -> Shape:
    """The shape in a cell, where there must be one."""
    assert q.scene is not None
    (found,) = [s for s in q.scene.shapes if (s.row, s.column) == (row, column)]
    return found


def only_one(q: WorldQuestion) -> Shape:
    """Of a question "below the only FORM": that shape."""
    assert q.scene is not None
    (form,) = re.findall(r"the only (\w+)\?", q.text)
    (found,) = [s for s in q.scene.shapes if s.form == form]
    return found


def asked_cell(q: WorldQuestion) -> Cell:
    """The only cell whose colour is asked for, from the text; "below the only FORM" takes the scene, too."""
    if q.kind == "one_cell":
        (name,) = re.findall(r"in cell ([a-i])\?", q.text)
        return ("abcdefghi".index(name) // 3, "abcdefghi".index(name) % 3)
    if q.kind in ("usual", "unusual"):
        (name,) = re.findall(r"colour is the (\w+)\?", q.text)
        return USUAL[name][:2]
    assert q.kind == "beside"
    first = only_one(q)
    below = "the shape below the only" in q.text
    assert below or "the shape right of the only" in q.text
    return (first.row + 1, first.column) if below else (first.row, first.column + 1)


def recomputed_gold(q: WorldQuestion) -> str:
    """The gold answer from the scene and the question's text alone, independently of the generator."""
    assert q.scene is not None
    shapes, bar = q.scene.shapes, q.scene.block or Block(0, 0, 0, 0)
    words = q.text.rstrip("?").split()
    match q.kind:
        case "count_form":
            return str(sum(s.form + "s" == words[-1] for s in shapes))
        case "count_colour":
            return str(sum(s.colour == words[2] for s in shapes))
        case "compare":
            counts = [sum(s.form + "s" == word for s in shapes) for word in (words[3], words[5])]
            return "yes" if counts[0] > counts[1] else "no"
        case "shape_share":
            return latex_fraction(Fraction(sum(s.colour == words[-1] for s in shapes), len(shapes)))
        case "stated":
            return str(sum(map(int, re.findall(r"\d+", q.text))))
        case "after_sum":
            ((a, b, colour),) = re.findall(r"What is (\d) \+ (\d) and the (\w+) shapes here\?", q.text)
            return str(int(a) + int(b) + sum(s.colour == colour for s in shapes))
        case "area":
            return str(len(bar.cells()))
        case "perimeter":
            return str(2 * (bar.height + bar.width))
        case "grid_share":
            return latex_fraction(Fraction(len(bar.cells()), 9))
        case "circle_area":
            return latex_pi(max(bar.height, bar.width) ** 2)
        case "circle_circumference":
            return latex_pi(2 * max(bar.height, bar.width))
    colour = _only_in_line(q).colour if q.kind == "position" else at(q, *asked_cell(q)).colour
    return q.text[q.text.index(f") {colour}") - 1]


def _only_in_line(q: WorldQuestion) -> Shape:
    ((line_name, axis),) = re.findall(r"(\w+) (row|column)", q.text)
    line = {"top": 0, "left": 0, "middle": 1, "bottom": 2, "right": 2}[line_name]
    assert q.scene is not None
    (shape,) = [s for s in q.scene.shapes if getattr(s, axis) == line]
    return shape


def cells_read(q: WorldQuestion) -> set[Cell]:
    """The cells of the answer, from the scene and the question's text alone."""
    assert q.scene is not None
    words, cells = q.text.rstrip("?").split(), {(s.row, s.column): s for s in q.scene.shapes}
    wanted: dict[str, Callable[[Shape], bool]] = {
        "count_form": lambda s: s.form + "s" == words[-1],
        "count_colour": lambda s: s.colour == words[2],
        "compare": lambda s: s.form + "s" in (words[3], words[5]),
        "shape_share": lambda s: True,
        "stated": lambda s: True,
        "after_sum": lambda s: s.colour == words[-3],
        "position": lambda s: s == _only_in_line(q),
        "beside": lambda s: s == only_one(q) or (s.row, s.column) == asked_cell(q),
    }
    if q.kind in ("usual", "unusual", "one_cell"):
        return {asked_cell(q)}
    if q.kind in wanted:
        return {cell for cell, shape in cells.items() if wanted[q.kind](shape)}
    assert q.scene.block is not None
    return q.scene.block.cells()
