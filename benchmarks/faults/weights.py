"""How far apart the weights are that two trainings of one start ended with."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avar_rl.export import latest_checkpoint
from avar_rl.shards import merge_shards


def final_weights(checkpoints: Path) -> dict[str, Any]:
    """The weights of a stage's newest checkpoint: tensors by name."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "model.safetensors"
        merge_shards(latest_checkpoint(checkpoints), whole)
        return load_file(whole)


def apart(run: Path, other: Path, start: Mapping[str, Any]) -> tuple[float, float]:
    """`distance` between the ends of two runs, from their folders."""
    return distance(final_weights(run / "checkpoints"), final_weights(other / "checkpoints"), start)


def distance(one: Mapping[str, Any], other: Mapping[str, Any], start: Mapping[str, Any]) -> tuple[float, float]:
    """Two trainings' ends compared: (0.0, 0.0) where they are equal bit by bit.

    Args:
        one, other: their weights, tensors of the same names.
        start: the weights that both started from; names that only it has are left out.

    Returns: the largest difference of a weight; and the length of the whole difference (all weights as one vector) as a
        share of the way from `start` to `other`, infinite where that has no length.
    """
    assert one.keys() == other.keys() and one.keys() <= start.keys()
    largest = max(float((one[name].double() - other[name].double()).abs().max()) for name in one)
    apart = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one)
    way = sum(float((other[name].double() - start[name].double()).square().sum()) for name in one)
    return largest, 0.0 if apart == 0 else (apart / way) ** 0.5 if way else float("inf")
