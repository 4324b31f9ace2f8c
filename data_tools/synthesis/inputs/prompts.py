"""Prompts: text files with `{question}`, `{description}` and `{reasoning}` where a stage's inputs go.

A line `### system` and a line `### user` may split a file into the two turns; without them it is the user's turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_tools.synthesis.inputs.recipe import PROMPTS, STAGES, Recipe

INPUTS = {"describe": ("question",), "reason": ("question", "description")}
INPUTS["anchor"] = ("question", "description", "reasoning")
REQUIRED = {"describe": (), "reason": ("question", "description"), "anchor": ("reasoning",)}
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Prompt:
    """The turns of a stage's request, before its inputs are filled in."""

    system: str | None
    user: str

    def turns(self, inputs: Mapping[str, str]) -> list[tuple[str, str]]:
        """(role, text) of each turn. Only the named slots are replaced, so that `{` in mathematics is left alone."""
        turns = [("system", self.system)] if self.system else []
        turns.append(("user", self.user))
        return [(role, _SLOT.sub(lambda m: inputs.get(m[1], m[0]), text)) for role, text in turns]


def load_prompts(recipe: Recipe) -> dict[str, Prompt]:
    """The prompts of a recipe by stage.

    Raises:
        ValueError: a stage's file is missing or empty, lacks a slot, or has an unknown one (all named).
    """
    return {stage: _load(recipe, stage) for stage in STAGES}


def _load(recipe: Recipe, stage: str) -> Prompt:
    name = recipe.stage(stage).prompt
    found = [folder / name for folder in (Path(recipe.folder), PROMPTS) if (folder / name).is_file()]
    if not found:
        own = ", ".join(sorted(path.name for path in PROMPTS.glob("*.txt")))
        raise ValueError(
            f"stages.{stage}.prompt: no file {name} beside the recipe, nor of the package, which has {own}"
        )
    text = found[0].read_text(encoding="utf-8")
    parts = dict(re.findall(r"^### (system|user)\n(.*?)(?=^### |\Z)", text, re.DOTALL | re.MULTILINE))
    prompt = Prompt(parts["system"].strip() if "system" in parts else None, parts.get("user", text).strip())
    slots = set(_SLOT.findall(f"{prompt.system or ''} {prompt.user}"))
    unknown, missing = slots - set(INPUTS[stage]), set(REQUIRED[stage]) - slots
    if unknown or missing or not prompt.user:
        what = f"unknown slots {sorted(unknown)}" if unknown else f"missing slots {sorted(missing)}"
        raise ValueError(f"{found[0]}: {what if slots or missing else 'empty'}; {stage} has {', '.join(INPUTS[stage])}")
    return prompt
