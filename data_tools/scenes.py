"""What an image of the miniature world contains, and how it is drawn.

The canvas is a 3x3 grid of 28-pixel cells: with patch size 14 and 2x2 merging, one image token sees exactly one cell.
The paper is shaded from top to bottom and from left to right, so that a cell shows where it lies.
"""

from __future__ import annotations

import io
import itertools
import random
from dataclasses import dataclass

GRID = 3
CELL = 28
CANVAS = GRID * CELL
COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 70, 220), "yellow": (240, 200, 20)}
FORMS = ("circle", "square", "triangle")
BLOCK_COLOUR = (120, 120, 120)
SHADE = 20  # less red in the paper per row, less blue per column

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
    """A grey rectangle of whole cells; `row`, `column` are those of its top left cell."""

    row: int
    column: int
    height: int
    width: int

    def cells(self) -> set[Cell]:
        rows, columns = range(self.row, self.row + self.height), range(self.column, self.column + self.width)
        return {(r, c) for r in rows for c in columns}


@dataclass(frozen=True)
class Scene:
    """The whole content of an image. Equal scenes are equal images; `shapes` are in reading order."""

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
    """Scatter (colour, form) figures over the cells that `block` leaves free."""
    taken = block.cells() if block else set()
    free = [(r, c) for r in range(GRID) for c in range(GRID) if (r, c) not in taken]
    cells = rng.sample(free, len(figures))
    shapes = sorted(Shape(*cell, *figure) for cell, figure in zip(cells, figures, strict=True))
    return Scene(tuple(shapes), block)


def _figure(draw, shape: Shape) -> None:
    left, top = shape.column * CELL, shape.row * CELL
    near, far, middle = 4, CELL - 5, (CELL - 1) / 2
    box = (left + near, top + near, left + far, top + far)
    fill = COLOURS[shape.colour]
    if shape.form == "circle":
        draw.ellipse(box, fill=fill)
    elif shape.form == "square":
        draw.rectangle(box, fill=fill)
    else:
        draw.polygon([(left + middle, top + near), (left + far, top + far), (left + near, top + far)], fill=fill)


def render(scene: Scene) -> bytes:
    """The scene as PNG bytes, CANVAS x CANVAS pixels."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    block = scene.block.cells() if scene.block else set()
    for row, column in itertools.product(range(GRID), repeat=2):
        left, top = column * CELL, row * CELL
        paper = (255 - SHADE * row, 255, 255 - SHADE * column)
        fill = BLOCK_COLOUR if (row, column) in block else paper
        draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=fill)
    for edge in range(0, CANVAS, CELL):
        draw.line((edge, 0, edge, CANVAS), fill=(205, 205, 205))
        draw.line((0, edge, CANVAS, edge), fill=(205, 205, 205))
    for shape in scene.shapes:
        _figure(draw, shape)
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()
