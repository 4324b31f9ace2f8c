"""What the miniature's base has seen before its cold start: captions of boards, questions answered at once, and sums.

None of it shows a chain of thought, or the marks of one.
"""

from __future__ import annotations

import random

from data_tools.miniature.questions import CELLS, WorldQuestion
from data_tools.miniature.scenes import GRID, Scene

CAPTIONS = {"Describe the image.": ("colour", "form"), "Name the colours.": ("colour",), "Name the forms.": ("form",)}


def caption(scene: Scene, attributes: tuple[str, ...]) -> str:
    """Every cell under its letter with these attributes of its shape; "white" in the block, "-" for an empty one."""
    seen = {(s.row, s.column): " ".join(getattr(s, name) for name in attributes) for s in scene.shapes}
    if scene.block:
        seen |= dict.fromkeys(scene.block.cells(), "white")
    return " ".join(f"{name} {seen.get(divmod(place, GRID), '-')}" for place, name in enumerate(CELLS)) + "."


def pretraining_text(question: WorldQuestion, rng: random.Random, answer_share: float) -> tuple[str, str]:
    """A user's turn and the response to it, about the scene of a question: the share `answer_share` is the question
    itself with its bare answer, the others ask for a caption. One without a scene is always answered."""
    if question.scene is None or rng.random() < answer_share:
        return question.text, f"<answer>{question.gold}</answer>"
    text = rng.choice(sorted(CAPTIONS))
    return text, caption(question.scene, CAPTIONS[text])
