"""Published numbers of benchmarks, each with its source: `published.json`, in percent, as the source gives them.

They were measured with other prompts, limits and judges: they stand beside a measured number, and are no part of it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Published:
    """The scores of one source: benchmark → {value} or {range: [low, high]}, with `uncertain` where the number could
    not be traced, and a `note`. `mean` is the source's own, None where it gives none."""

    name: str
    model: str
    source: str
    scores: Mapping[str, Mapping[str, Any]]
    mean: float | None = None

    def text(self, benchmark: str) -> str:
        """The number as a table shows it, `38.3 ?` where it is uncertain; "" where the source has none."""
        score = self.scores.get(benchmark)
        if score is None:
            return ""
        number = f"{score['value']:.1f}" if "value" in score else "–".join(f"{end:.1f}" for end in score["range"])
        return f"{number} ?" if score.get("uncertain") else number

    @property
    def notes(self) -> list[str]:
        """What the source's numbers need said: `mmmu_pro: the model card says 41.0`."""
        return [f"{name}: {score['note']}" for name, score in self.scores.items() if "note" in score]


@functools.cache
def published() -> tuple[Published, ...]:
    """All sources, in the order of the file."""
    content = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    return tuple(Published(**one) for one in json.loads(content))
