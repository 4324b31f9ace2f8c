"""Which question families the miniature world asks, and how often each."""

from __future__ import annotations

import random

from data_tools.miniature.graded_questions import after_sum, beside, one_cell, stated, usual
from data_tools.miniature.questions import (
    Family,
    arithmetic,
    circle,
    compare,
    count_colour,
    count_form,
    position,
    rectangle,
    shape_share,
)

# Family -> share of the image questions. The enumerating families have the most to gain from reinforcement.
FAMILIES: dict[Family, float] = {
    stated: 0.06,
    usual: 0.08,
    one_cell: 0.07,
    count_form: 0.12,
    count_colour: 0.12,
    compare: 0.08,
    shape_share: 0.11,
    position: 0.07,
    rectangle: 0.08,
    circle: 0.05,
    beside: 0.07,
    after_sum: 0.09,
}


def family_plan(rng: random.Random, rows: int, text_share: float) -> list[Family]:
    """The families of `rows` questions in random order: `text_share` of text-only ones, the others by FAMILIES."""
    plan = [arithmetic] * round(rows * text_share)
    image_rows, drawn, cumulative = rows - len(plan), 0, 0.0
    for family, share in FAMILIES.items():
        cumulative += share
        plan += [family] * (round(image_rows * cumulative) - drawn)
        drawn = round(image_rows * cumulative)
    rng.shuffle(plan)
    return plan
