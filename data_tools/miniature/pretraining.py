"""What the miniature's base has seen before its cold start: captions of boards, questions answered at once, and text:
sums, and questions about boards in words, with chains of thought. No chain of thought is about an image.
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


def in_words(question: WorldQuestion, *, glance: bool = False) -> tuple[str, str]:
    """A question about a board that the text describes instead of an image, and the worked response to it."""
    response = question.response(glance=glance)
    if question.scene is None:
        return question.text, response
    text = f"{caption(question.scene, CAPTIONS['Describe the image.'])} {question.text}"
    return text, response.replace("the image", "the text")


def about_image(question: WorldQuestion, rng: random.Random, answer_share: float) -> tuple[str, str]:
    """A user's turn about the image of a question's scene, and the response: for the share `answer_share` the question
    itself with its bare answer, for the others a caption."""
    assert question.scene is not None
    if rng.random() < answer_share:
        return question.text, f"<answer>{question.gold}</answer>"
    text = rng.choice(sorted(CAPTIONS))
    return text, caption(question.scene, CAPTIONS[text])
