"""Evidence boxes: where in its images a question's answer is to be seen (`extra_info.evidence` of a data row).

One list of boxes for each image, in order; a box is [x0, y0, x1, y1] in pixels of the image as its file stores it, from
(0, 0) at the top left, x1 and y1 exclusive. An image without boxes has an empty list. A row without any evidence has an
empty `evidence`, or none.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
Evidence = tuple[tuple[Box, ...], ...]  # the boxes of each image


class EvidenceError(ValueError):
    """Evidence boxes that are no boxes, or that do not fit the images of their row."""


def read_evidence(value: Any, name: str = "extra_info.evidence") -> Evidence:
    """The boxes of a row, from nested lists of numbers; () for None and an empty list.

    Args:
        value: a list of boxes for each image; None in place of such a list is an image without boxes.
        name: where the value stands, for the message.

    Raises:
        EvidenceError: it is anything else.
    """
    if value is None:
        return ()
    try:
        return tuple(tuple(_box(box) for box in _listed(boxes)) for boxes in _listed(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise EvidenceError(
            f"`{name}` is {reprlib.repr(value)}; it must be a list of boxes [x0, y0, x1, y1], in pixels, for each image"
        ) from error


def _listed(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise TypeError("no list")
    return value


def _box(value: Any) -> Box:
    x0, y0, x1, y1 = _listed(value)
    if any(isinstance(side, bool) or not isinstance(side, int | float) for side in (x0, y0, x1, y1)):
        raise TypeError("a side of a box is no number")
    return float(x0), float(y0), float(x1), float(y1)


def count_fault(evidence: Evidence, images: int) -> str | None:
    """What is wrong where a row of `images` images has not one list of boxes for each; None where nothing is."""
    if not evidence or len(evidence) == images:
        return None
    if not images:
        return "`evidence` has boxes, but the row has no image"
    return (
        f"`evidence` has {len(evidence)} lists of boxes, but the row has {images} images; [] is for one without boxes"
    )


def evidence_faults(evidence: Evidence, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """All that is wrong with the boxes of a row, a sentence each; [] where nothing is.

    Args:
        sizes: (width, height) of each image in pixels.
    """
    if fault := count_fault(evidence, len(sizes)):
        return [fault]
    found = []
    for image, (boxes, size) in enumerate(zip(evidence, sizes, strict=False)):  # as many, or no evidence at all
        for number, box in enumerate(boxes):
            if fault := _box_fault(box, *size):
                shown = ", ".join(f"{side:g}" for side in box)
                found.append(f"evidence box {number} of image {image}, [{shown}], {fault}")
    return found


def _box_fault(box: Box, width: int, height: int) -> str | None:
    x0, y0, x1, y1 = box
    if not all(math.isfinite(side) for side in box):
        return "is not finite"
    if x1 < x0 or y1 < y0:
        return "is reversed: x0 < x1 and y0 < y1 are wanted"
    if x0 == x1 or y0 == y1:
        return "is empty: x1 and y1 are exclusive"
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        return f"reaches outside the image of {width} x {height} pixels"
    if x1 <= 1 and y1 <= 1:
        return f"is within one pixel of {width} x {height}: boxes are in pixels, not in fractions of the image"
    return None


def box_fractions(evidence: Evidence, sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[float, ...]]:
    """Every box of a row as (index of its image, x0, y0, x1, y1), the sides as fractions of the image.

    Args:
        sizes: (width, height) of each image in pixels, at the size that the boxes are about.

    Raises:
        EvidenceError: a box does not fit its image.
    """
    if faults := evidence_faults(evidence, sizes):
        raise EvidenceError("; ".join(faults))
    for image, (boxes, (width, height)) in enumerate(zip(evidence, sizes, strict=False)):
        for x0, y0, x1, y1 in boxes:
            yield image, x0 / width, y0 / height, x1 / width, y1 / height
