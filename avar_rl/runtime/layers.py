"""Which layers a person means: the one grammar of every option and recipe key that names layers."""

from __future__ import annotations

import re

GRAMMAR = "layer indices from 0 and ranges FIRST-LAST (both ends included), joined by commas or +, such as 0-13,20"


def parse_layers(text: str, where: str) -> tuple[int, ...]:
    """`0-13,20` or `0-13+20` → (0, 1, …, 13, 20), ascending, each once.

    Indices count the decoder layers of the language model from 0. `+` is for places where a comma has another meaning.

    Args:
        where: what the user wrote it in (an option, a recipe key), for the message.

    Raises:
        ValueError: `text` is not of this grammar, or a range runs backwards.
    """
    layers: set[int] = set()
    for part in re.split("[,+]", text):
        bounds = re.fullmatch(r"\s*([0-9]{1,6})(?:-([0-9]{1,6}))?\s*", part)
        if bounds is None:
            raise ValueError(f"{where} {text!r}: {part!r} is not a layer or FIRST-LAST; write {GRAMMAR}")
        first, last = int(bounds[1]), int(bounds[2] or bounds[1])
        if last < first:
            raise ValueError(f"{where} {text!r}: the range {part.strip()} runs backwards; write {GRAMMAR}")
        layers.update(range(first, last + 1))
    return tuple(sorted(layers))


def format_layers(layers: tuple[int, ...], joint: str = ",") -> str:
    """(0, 1, 2, 20) → `0-2,20`: the shortest text that `parse_layers` reads as these ascending indices."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return joint.join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
