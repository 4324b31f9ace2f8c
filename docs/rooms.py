"""Draws the imports between rooms of a checkout as a matrix: `python docs/rooms.py CHECKOUT OUT.svg`.

A room is a folder with Python files. A row imports the rooms that its marks stand under, as often as the number says;
on the diagonal are the imports inside a room. Rooms are ordered so that each imports only rooms above it: a mark above
the diagonal, drawn in red, is part of a circle. Prints the same as figures.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

PACKAGES = ("avar_rl", "rewards", "data_tools")
CELL, LABEL, HEAD = 20, 250, 34


def modules(root: Path) -> dict[str, Path]:
    """Dotted name → file of every module, packages by their `__init__`."""
    files = [file.relative_to(root) for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
    return {".".join(file.with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(root: Path) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Files of each room, and the number of imports from one module of ours to another, by (room, room)."""
    known = modules(root)
    edges: Counter[tuple[str, str]] = Counter()
    for name, file in known.items():
        wanted = set()
        for node in ast.walk(ast.parse((root / file).read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= (full & known.keys()) or {node.module}
        for other in (wanted & known.keys()) - {name}:
            edges[str(file.parent), str(known[other].parent)] += 1
    return Counter(str(file.parent) for file in known.values()), edges


def reachable(edges: Counter[tuple[str, str]], start: str) -> set[str]:
    """The rooms that `start` imports, and those that they import, and so on."""
    found, open_rooms = set(), [start]
    while open_rooms:
        here = open_rooms.pop()
        new = {b for a, b in edges if a == here and b != here} - found
        found |= new
        open_rooms += new
    return found


def ordered(rooms: list[str], edges: Counter[tuple[str, str]]) -> list[str]:
    """Rooms from the bottom up: each after those it imports, rooms of one circle side by side."""
    below = {room: reachable(edges, room) for room in rooms}
    return sorted(rooms, key=lambda room: (len(below[room] | {room}), sorted(below[room] | {room}), room))


def svg(rooms: list[str], edges: Counter[tuple[str, str]]) -> str:
    size = len(rooms) * CELL
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LABEL + size + 10} {HEAD + size + 10}" '
        f'width="{LABEL + size + 10}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for row, room in enumerate(rooms):
        y = HEAD + row * CELL
        number = f'<tspan fill="#667">{row + 1}</tspan>'
        parts.append(f'<text x="{LABEL - 6}" y="{y + 14}" text-anchor="end">{room} {number}</text>')
        middle = LABEL + row * CELL + 10
        parts.append(f'<text x="{middle}" y="{HEAD - 6}" text-anchor="middle">{number}</text>')
        for column, other in enumerate(rooms):
            x = LABEL + column * CELL
            count = edges[room, other]
            fill = "#eef" if row == column else "#fff"
            if count and row != column:
                fill = "#5c6bc0" if column < row else "#c62828"
            parts.append(f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{fill}" stroke="#dde"/>')
            shown, colour = (count, "#fff") if row != column else (count or "", "#667")
            if shown:
                parts.append(f'<text x="{x + 10}" y="{y + 14}" text-anchor="middle" fill="{colour}">{shown}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main(checkout: str, out: str) -> int:
    files, edges = imports(Path(checkout))
    rooms = ordered(list(files), edges)
    Path(out).write_text(svg(rooms, edges))
    between = {edge: count for edge, count in edges.items() if edge[0] != edge[1]}
    below = {room: reachable(edges, room) for room in rooms}
    circles = {frozenset(other for other in rooms if other in below[room] and room in below[other]) for room in rooms}
    print(
        f"{len(rooms)} rooms, {len(between)} pairs of rooms with imports between them, {sum(between.values())} imports"
    )
    print("circles:", [sorted(circle) for circle in circles if circle] or "none")
    for room in rooms:
        print(f"{room:<40} {files[room]:>3} files {edges[room, room]:>3} imports inside")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
