"""What an image of the miniature world contains, and how it is drawn.

The canvas is a 3x3 grid of 28-pixel cells: with patch size 14 and 2x2 merging, one image token sees exactly one cell.
The board is shaded from top to bottom and from left to right, so that a cell shows where it lies.
"""

from __future__ import annotations

import io
import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from avar_rl.runtime.evidence import Box

if TYPE_CHECKING:
    from PIL import ImageDraw

GRID = 3
CELL = 28
CANVAS = GRID * CELL
COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 70, 220), "yellow": (240, 200, 20)}
FORMS = ("circle", "square", "triangle")
MARGIN = 3  # pixels between a shape and its cell's edge
HOLE = 9  # pixels between a circle's white middle and its cell's edge
BLOCK_COLOUR = (245, 245, 245)
# Near the mean of Qwen's pixel normalisation, so that an empty cell is close to zero and a shape stands out: on white
# paper the same model needs several times the steps to learn to read a cell.
BOARD = (122, 116, 104)
SHADE = 40  # more red in the board per row, more blue per column
LINE_COLOUR = (60, 60, 60)
EDGE_COLOUR = (0, 0, 0)

Cell = tuple[int, int]  # (row, column), each 0..GRID-1, row 0 on top


@dataclass(frozen=True, order=True)
class Shape:
    """A small coloured figure inside one cell."""

    row: int
    column: int
    colour: str
    form: str

    def __str__(self) -> str:
        return f"{self.colour} {self.form}"


@dataclass(frozen=True)
class Block:
    """A white rectangle of whole cells; `row`, `column` are those of its top left cell."""

    row: int
    column: int
    height: int
    width: int

    def cells(self) -> set[Cell]:
        """The cells that it covers."""
        rows, columns = range(self.row, self.row + self.height), range(self.column, self.column + self.width)
        return {(r, c) for r in rows for c in columns}


@dataclass(frozen=True)
class Scene:
    """The whole content of an image. Equal scenes are equal images; `shapes` are in reading order.

    Raises:
        ValueError: two things in one cell, something outside the grid, or shapes in another order.
    """

    shapes: tuple[Shape, ...] = ()
    block: Block | None = None

    def __post_init__(self) -> None:
        cells = [(shape.row, shape.column) for shape in self.shapes]
        taken = self.block.cells() if self.block else set()
        if len(set(cells)) < len(cells) or taken & set(cells):
            raise ValueError(f"two things in one cell: {self}")
        if any(not (0 <= r < GRID and 0 <= c < GRID) for r, c in [*cells, *taken]):
            raise ValueError(f"outside the {GRID}x{GRID} grid: {self}")
        if list(self.shapes) != sorted(self.shapes):
            raise ValueError(f"shapes not in reading order: {self}")


def place(rng: random.Random, figures: list[tuple[str, str]], block: Block | None = None) -> Scene:
    """A scene with these (colour, form) figures, scattered over the cells that `block` leaves free."""
    taken = block.cells() if block else set()
    free = [(r, c) for r in range(GRID) for c in range(GRID) if (r, c) not in taken]
    cells = rng.sample(free, len(figures))
    shapes = sorted(Shape(*cell, *figure) for cell, figure in zip(cells, figures, strict=True))
    return Scene(tuple(shapes), block)


def cell_box(cell: Cell) -> Box:
    """The pixels of a cell as an evidence box."""
    row, column = cell
    return (float(column * CELL), float(row * CELL), float((column + 1) * CELL), float((row + 1) * CELL))


def _figure(draw: ImageDraw.ImageDraw, shape: Shape) -> None:
    left, top, middle = shape.column * CELL, shape.row * CELL, (CELL - 1) / 2

    def box(margin: int) -> tuple[int, int, int, int]:
        return (left + margin, top + margin, left + CELL - 1 - margin, top + CELL - 1 - margin)

    fill = COLOURS[shape.colour]
    x0, y0, x1, y1 = box(MARGIN)
    # A white middle and a black edge: marks of form that every colour shows, without which a small model takes several
    # times the steps to tell forms apart.
    if shape.form == "circle":
        draw.ellipse(box(MARGIN), fill=fill)
        draw.ellipse(box(HOLE), fill=BLOCK_COLOUR)
    elif shape.form == "square":
        draw.rectangle(box(MARGIN), fill=fill, outline=EDGE_COLOUR, width=3)
    else:
        draw.polygon([(left + middle, y0), (x1, y1), (x0, y1)], fill=fill)


def render(scene: Scene) -> bytes:
    """The scene as PNG bytes, CANVAS x CANVAS pixels."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    block = scene.block.cells() if scene.block else set()
    for row, column in itertools.product(range(GRID), repeat=2):
        left, top = column * CELL, row * CELL
        board = (BOARD[0] + SHADE * (row - 1), BOARD[1], BOARD[2] + SHADE * (column - 1))
        fill = BLOCK_COLOUR if (row, column) in block else board
        draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=fill)
    for edge in range(0, CANVAS, CELL):
        draw.line((edge, 0, edge, CANVAS), fill=LINE_COLOUR)
        draw.line((0, edge, CANVAS, edge), fill=LINE_COLOUR)
    for shape in scene.shapes:
        _figure(draw, shape)
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()
