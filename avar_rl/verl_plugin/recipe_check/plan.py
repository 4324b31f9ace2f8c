"""What a recipe is about to run: its stages' command lines, and which of them makes which file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TRAINERS = {"avar_rl.verl_plugin.sft": "sft", "avar_rl.verl_plugin.grpo": "grpo"}
EVALUATION = "avar_rl.evaluation"
_BASE, _EXPORT = "avar_rl.base_model", "avar_rl.export"
_DATA = re.compile(r".*\.(parquet|jsonl?)")


@dataclass(frozen=True)
class RecipeStage:
    """One stage: its name and the words of its command, `PYTHON -m MODULE …`."""

    name: str
    words: tuple[str, ...]

    @property
    def module(self) -> str:
        """The module that the command runs."""
        return self.words[2] if self.words[1:2] == ("-m",) else ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words behind the module."""
        return self.words[3:]

    def option(self, name: str) -> str | None:
        """The word behind an option, the last one where it is given twice; None without it."""
        places = [place for place, word in enumerate(self.arguments[:-1]) if word == name]
        return self.arguments[places[-1] + 1] if places else None


def read_plan(text: str) -> list[RecipeStage]:
    """The stages as recipes/stages.sh writes them, separated by NUL: name, number of words, words, name, …"""
    items = text.split("\0")[:-1]
    stages = []
    while items:
        name, count, *rest = items
        stages.append(RecipeStage(name, tuple(rest[: int(count)])))
        items = rest[int(count) :]
    return stages


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
