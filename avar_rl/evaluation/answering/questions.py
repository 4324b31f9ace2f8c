"""RL rows (see data_tools.formats.rows) as questions: checked before any model is loaded."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avar_rl.probe.samples import Conversation
from avar_rl.runtime.files import read_parquet
from data_tools.formats.rows import row_format
from data_tools.validate import load_processor, validate_rows
from rewards.sample import row_options, row_other_golds
from rewards.shipped.accuracy import check_gold

MAX_NAMED = 5  # faults spelt out in an error


@dataclass(frozen=True)
class Question:
    """What one RL row asks, and what its answer is graded by."""

    conversation: Conversation  # it ends where the model's turn comes next
    kind: str  # the family of the question; "" where the row names none
    gold: str
    options: tuple[str, ...] = ()  # texts of a multiple choice, A first
    other_golds: tuple[str, ...] = ()  # any of them is right, too


@dataclass(frozen=True)
class PromptLimits:
    """What an engine must hold: tokens of the longest prompt, image tokens counted, and images of one prompt."""

    tokens: int
    images: int


@dataclass(frozen=True)
class QuestionSet:
    """Questions, and the length in tokens of the longest prompt among them, image tokens counted."""

    questions: tuple[Question, ...]
    longest_prompt: int

    @property
    def limits(self) -> PromptLimits:
        """What an engine must hold for these questions."""
        return PromptLimits(self.longest_prompt, max(len(asked.conversation.images) for asked in self.questions))


def check_weights(model: str) -> None:
    """Raises ValueError where `model` is a directory without weights; the name of a model on the hub passes."""
    folder = Path(model)
    if folder.is_dir() and not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise ValueError(
            f"{model} holds no weights (*.safetensors); is it an export of avar_rl or a Hugging Face model?"
        )


def load_questions(path: str | Path, processor, limit: int | None = None) -> QuestionSet:
    """The first `limit` rows of a parquet file of RL rows; None for all.

    Args:
        processor: of the model that will answer, as it counts the tokens of a prompt.

    Raises:
        ValueError: the file is missing, empty or no RL data, or a row is faulty (missing or broken image, unscorable
            answer, ...); names the rows.
    """
    rows = read_parquet(path)
    if row_format(rows[0], path) == "chat":
        raise ValueError(f"{path} holds chat rows (for SFT); evaluation needs RL rows, which have a gold answer")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1")
    rows = rows[:limit]
    report = validate_rows(rows, processor, max_length=2**31, check_gold=functools.cache(check_gold))
    if report.faults:
        named = "\n  ".join(str(fault) for fault in report.faults[:MAX_NAMED])
        raise ValueError(f"{path}: {len(report.faults)} faults; the first are\n  {named}")
    return QuestionSet(tuple(_question(index, row) for index, row in enumerate(rows)), report.longest)


def _question(index: int, row: dict[str, Any]) -> Question:
    extra = row.get("extra_info") or {}
    images = tuple(image["bytes"] for image in row["images"] or [])
    return Question(
        conversation=Conversation(str(extra.get("id") or index), tuple(row["prompt"]), images),
        kind=extra.get("kind") or row["data_source"] or "",  # a data set without kinds of question is one kind
        gold=row["reward_model"]["ground_truth"],
        options=row_options(extra),
        other_golds=row_other_golds(extra),
    )


__all__ = ["Question", "QuestionSet", "check_weights", "load_processor", "load_questions"]
