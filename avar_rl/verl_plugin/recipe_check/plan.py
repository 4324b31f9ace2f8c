"""What a recipe is about to run: its stages' command lines, and which of them makes which file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from avar_rl.runtime.recipe_plan import RecipeStage

TRAINERS = {"avar_rl.verl_plugin.sft": "sft", "avar_rl.verl_plugin.grpo": "grpo"}
EVALUATION = "avar_rl.evaluation"
_BASE, _EXPORT = "avar_rl.base_model", "avar_rl.export"
_DATA = re.compile(r".*\.(parquet|jsonl?)")


def origin(path: str, stages: Sequence[RecipeStage]) -> str | None:
    """The model that a stage's model comes from: a base model's MODEL, an export's --base; None where a stage makes it
    from scratch. A model that no stage makes is its own origin."""
    for stage in stages:
        if stage.module == _BASE and _same(stage.arguments[1], path):
            return origin(stage.arguments[0], [s for s in stages if s is not stage])
        if stage.module == _EXPORT and _same(stage.arguments[1], path):
            base = stage.option("--base")
            return None if base is None else origin(base, stages)
        if stage.module not in TRAINERS and _same(stage.option("--out") or "", path):
            return path if (Path(path) / "config.json").is_file() else None
    return path


def pixel_cap(stages: Sequence[RecipeStage]) -> int | None:
    """The largest image that the recipe's base model lets through, in pixels; None where the recipe sets none."""
    caps = [stage.option("--max-pixels") for stage in stages if stage.module == _BASE]
    return next((int(cap) for cap in caps if cap is not None), None)


def missing_files(stages: Sequence[RecipeStage], out: Path) -> list[str]:
    """Sentences on data files that commands name, as FILE or NAME=FILE, that are not there, and that no stage makes
    (outside of `out`)."""
    others = [stage for stage in stages if stage.module not in TRAINERS]
    named = [(stage, word.rpartition("=")[2]) for stage in others for word in stage.arguments]
    return [
        f"stage {stage.name}: {file}: no such data file"
        for stage, file in named
        if _DATA.fullmatch(file) and not inside(file, out) and not Path(file).expanduser().is_file()
    ]


def inside(path: str, out: Path) -> bool:
    """Whether a path lies in the recipe's own folder, where the stages write."""
    return Path(os.path.abspath(path)).is_relative_to(out)


def _same(one: str, other: str) -> bool:
    return bool(one) and os.path.abspath(one) == os.path.abspath(other)
