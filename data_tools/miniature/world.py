"""The miniature world as data sets: disjoint seeded splits, and how much of it the text alone gives away."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data_tools.formats.rows import chat_row, rl_row
from data_tools.miniature.families import family_plan
from data_tools.miniature.pretraining import about_image, in_words
from data_tools.miniature.questions import Family, WorldQuestion, without_anchors
from data_tools.miniature.scenes import Scene, cell_box, render

MAX_LANGUAGE_PRIOR = 0.35
MAX_REDRAWS = 1000
SOURCE = "tiny_world"  # the name of this data set
# Splits are drawn in this order, so the held-out ones do not depend on how many training rows are asked for.
SPLITS = ("test", "rl_val", "sft_val", "rl_train", "sft_train", "pretrain")
TRAINING_SPLITS = ("rl_train", "sft_train", "pretrain")
NEEDS_NO_LOOK = ("nothing", "prior")


@dataclass(frozen=True)
class WorldConfig:
    """How large the splits of the world are, and what they are made of; equal configurations give equal rows.

    `text_share`: of text-only rows in the training splits (held-out splits are all images). `glance_share`: of the SFT
    rows with two chains of thought, those that show the short one (`WorldQuestion.glance`). `answer_share`: of the
    pre-training rows with an image, those that answer a question at once, the others are captions. `words_share`: of
    the pre-training rows about a board, those that describe it in words instead of showing it.

    Raises:
        ValueError: a split without rows, or a share outside its bounds.
    """

    seed: int = 0
    pretrain: int = 10000
    sft_train: int = 8000
    sft_val: int = 128
    rl_train: int = 2000
    rl_val: int = 120
    test: int = 240
    text_share: float = 0.06
    glance_share: float = 0.5
    answer_share: float = 0.3
    words_share: float = 0.3

    def __post_init__(self) -> None:
        for split in SPLITS:
            if getattr(self, split) < 1:
                raise ValueError(f"rows of {split} must be at least 1, not {getattr(self, split)}")
        if not 0.0 <= self.text_share < 1.0:
            raise ValueError(f"text share must be in [0, 1), not {self.text_share}")
        for name in ("glance_share", "answer_share", "words_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name.replace('_', ' ')} must be in [0, 1], not {getattr(self, name)}")


def make_questions(
    config: WorldConfig, progress: Callable[[int], object] = lambda n: None
) -> dict[str, list[WorldQuestion]]:
    """The questions of every split; no scene occurs twice, in one split or in two.

    `progress` is called with 1 after each question.

    Raises:
        ValueError: the world has not that many different questions.
    """
    seen: set[Scene] = set()
    splits: dict[str, list[WorldQuestion]] = {}
    for split in SPLITS:
        # One generator per split: a string seed is hashed stably by `random`, unlike hash().
        rng = random.Random(f"{config.seed}/{split}")
        text_share = config.text_share if split in TRAINING_SPLITS else 0.0
        splits[split] = []
        for family in family_plan(rng, getattr(config, split), text_share):
            splits[split].append(_unseen(family, rng, seen))
            progress(1)
    return splits


def _unseen(family: Family, rng: random.Random, seen: set[Scene]) -> WorldQuestion:
    """A question of `family` whose scene is not in `seen`, which it joins; or one without a scene."""
    for _ in range(MAX_REDRAWS):
        question = family(rng)
        if question.scene not in seen:
            if question.scene:
                seen.add(question.scene)
            return question
    raise ValueError(f"{family.__name__}: no unseen question in {MAX_REDRAWS} draws; ask for fewer rows")


def pretraining_rows(questions: Sequence[WorldQuestion], config: WorldConfig) -> list[dict[str, Any]]:
    """Chat rows for the base: captions, bare answers and text (`data_tools.miniature.pretraining`)."""
    rng = random.Random(f"{config.seed}/pretrain/rows")
    rows = []
    for index, question in enumerate(questions):
        words = question.scene is None or rng.random() < config.words_share
        text, response = in_words(question) if words else about_image(question, rng, config.answer_share)
        images = () if words or question.scene is None else (render(question.scene),)
        rows.append(chat_row(id=f"pretrain-{index:05d}", question=text, response=response, images=images))
    return rows


def cold_start_rows(
    questions: Sequence[WorldQuestion], split: str, config: WorldConfig
) -> dict[str, list[dict[str, Any]]]:
    """Chat rows for a cold start on the questions of `split`, in three forms with the same thoughts: `split`, as they
    are; `split`_unanchored, without the words that refer to the image; `split`_words, about boards in words."""
    rng = random.Random(f"{config.seed}/{split}/glance")
    forms: dict[str, list[dict[str, Any]]] = {split: [], f"{split}_unanchored": [], f"{split}_words": []}
    for index, question in enumerate(questions):
        glance = rng.random() < config.glance_share
        response, (text, of_text) = question.response(glance=glance), in_words(question, glance=glance)
        images = (render(question.scene),) if question.scene else ()
        said = ((question.text, response), (question.text, without_anchors(response)), (text, of_text))
        for form, (asked, answered), seen in zip(forms, said, (images, images, ()), strict=True):
            id_ = f"{form}-{index:05d}"
            forms[form].append(chat_row(id=id_, question=asked, response=answered, images=seen))
    return forms


def files_of(split: str, questions: Sequence[WorldQuestion], config: WorldConfig) -> dict[str, list[dict[str, Any]]]:
    """The rows of every file that is made of a split, by the file's name without its ending."""
    if split == "pretrain":
        return {split: pretraining_rows(questions, config)}
    if split.startswith("sft"):
        return cold_start_rows(questions, split, config)
    return {split: rl_rows(questions, split)}


def rl_rows(questions: Sequence[WorldQuestion], split: str) -> list[dict[str, Any]]:
    """The questions of a split of RL rows in verl's format, scenes drawn as PNG."""
    rows = []
    for index, question in enumerate(questions):
        row = rl_row(
            id=f"{split}-{index:05d}",
            source=SOURCE,
            question=question.text,
            gold=question.gold,
            images=(render(question.scene),) if question.scene else (),
            kind=question.kind,
            gold_kind=question.gold_kind,
            options=question.options,
            evidence=(tuple(map(cell_box, question.cells)),) if question.scene else (),
            index=index,
            split=split,
        )
        rows.append(row)
    return rows


def language_prior(train: Sequence[WorldQuestion], test: Sequence[WorldQuestion]) -> float:
    """Accuracy on `test` (0 to 1) of the most frequent training gold per question text: what a blind model can reach.

    A text never seen in training gets the most frequent gold overall. Questions whose image is not needed are left out.

    Raises:
        ValueError: the training or the test questions hold no image question.
    """
    golds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    for question in train:
        if question.need not in NEEDS_NO_LOOK:
            golds[question.text][question.gold] += 1
            overall[question.gold] += 1
    if not overall:
        raise ValueError("language prior: the training questions hold no image question")
    asked = [q for q in test if q.need not in NEEDS_NO_LOOK]
    if not asked:
        raise ValueError("language prior: the test questions hold no image question")
    hits = [golds.get(q.text, overall).most_common(1)[0][0] == q.gold for q in asked]
    return sum(hits) / len(hits)
