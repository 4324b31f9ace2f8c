"""MathVerse, the hub's `AI4Math/MathVerse` (configuration testmini), and parquet, JSON or TSV files like it.

Schema: sample_index, problem_index, problem_version (Text Dominant, Text Lite, Vision Intensive, Vision Dominant,
Vision Only), question (options stand in it; empty in the version Vision Only, whose question is in the image), image
(Image, or a path in the JSON release), answer (a letter or a value), question_type (multi-choice, free-form),
metadata, query_wo, query_cot, question_for_eval (the whole question in every version); split testmini (3,940).
VLMEvalKit's TSV has query_wo as `question`.
"""

import re

from data_tools.convert.sources.source import (
    IN_THE_IMAGE,
    Draft,
    Row,
    Source,
    answer_of,
    columns_within,
    kept,
    needs_question_type,
    numbered_objects,
    optional_text,
    text_of,
)
from data_tools.formats.sample import letters

VISION_ONLY = "Vision Only"
_CHOICE = re.compile(r"^([A-Z])[:.] ?(.*)$", re.MULTILINE)
_NAMES = ("sample_index", "problem_index", "problem_version", "question_type", "answer")
_QUERIES = ("query_wo", "query_cot", "question_for_eval")


def draft(row: Row) -> Draft:
    """What a row of MathVerse says; raises ValueError for one that cannot be used."""
    vision_only = row["problem_version"] == VISION_ONLY and not optional_text(row, "question")
    extra = columns_within(row, "metadata") | kept(row, *_NAMES, *_QUERIES)
    if options := _options(optional_text(row, "question_for_eval") or optional_text(row, "question")):
        extra["options"] = options
    return Draft(
        IN_THE_IMAGE if vision_only else text_of(row, "question"), answer_of(row, "answer"), [row["image"]], extra=extra
    )


def _options(question: str) -> list[str]:
    """The texts after `Choices:` in a question, A first; [] for none."""
    _, named, choices = question.partition("Choices:")
    found = _CHOICE.findall(choices) if named else []
    in_order = len(found) <= 26 and "".join(letter for letter, _ in found) == letters(len(found))
    return [text.strip() for _, text in found] if in_order else []


def from_tsv(row: Row) -> Row:
    """A row of VLMEvalKit's TSV as one of the hub's."""
    query = optional_text(row, "question")
    named = {"sample_index": row["index"], "query_wo": query}
    return named | dict(row) | {"question": "" if row.get("problem_version") == VISION_ONLY else query}


SOURCE = Source(
    "mathverse",
    ("question", "image", "answer", "problem_version"),
    draft,
    hub="AI4Math/MathVerse",
    configs=("testmini",),
    splits=("testmini",),
    read=numbered_objects,
    tsv=from_tsv,
    identity=("sample_index",),
    official=needs_question_type,
)
