"""How many pixels a model's image processor gives an image, and how many tokens they become."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

MAX_RATIO = 200  # of an image's sides: beyond it, Qwen's resizing raises


@dataclass(frozen=True)
class PixelLimits:
    """The limits of an image processor of the Qwen-VL families.

    An image is resized so that both sides are multiples of `side`, its ratio stays nearly what it was, and its pixels
    lie between `least` and `most`; each square of `side` × `side` pixels becomes one token of the prompt.

    least, most: pixels of an image.
    side: pixels along the side of a token, the patch size times the merge size: 28, or 32 for Qwen3-VL.
    """

    least: int
    most: int
    side: int

    @classmethod
    def of(cls, image_processor: Any) -> PixelLimits:
        """The limits of a loaded image processor. ValueError: it is of a kind that has none."""
        names = ("size", "patch_size", "merge_size")
        size, patch, merge = (getattr(image_processor, name, None) for name in names)
        if not (patch and merge and size and size.get("shortest_edge") and size.get("longest_edge")):
            raise ValueError(
                f"{type(image_processor).__name__} has no limits of pixels as Qwen2-VL, Qwen2.5-VL and Qwen3-VL have: "
                f"it needs {', '.join(names)}, with shortest_edge and longest_edge in size"
            )
        return cls(size["shortest_edge"], size["longest_edge"], patch * merge)

    @property
    def most_tokens(self) -> int:
        """The tokens that no image exceeds.

        That is `most` in tokens, except under 200 of them, where a strip may get more (its shorter side is never under
        one token), and where `least` is near `most` (a small image grows to `least` with both sides rounded up).
        """
        capped = self.most // self.side**2
        strip = math.isqrt(MAX_RATIO * self.most) // self.side if self.most < MAX_RATIO * self.side**2 else 0
        longer, shorter = math.sqrt(self.least * MAX_RATIO), math.sqrt(self.least / MAX_RATIO)
        grown = int((longer + self.side) * (shorter + self.side)) // self.side**2
        return max(capped, strip, grown)
