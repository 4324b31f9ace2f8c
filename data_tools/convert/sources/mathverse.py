"""MathVerse, the hub's `AI4Math/MathVerse` (configuration testmini), and parquet or JSON files like it.

Schema: sample_index, problem_index, problem_version (Text Dominant, Text Lite, Vision Intensive, Vision Dominant,
Vision Only), question (options stand in it; empty in the version Vision Only, whose question is in the image), image
(Image, or a path in the JSON release), answer (a letter or a value), question_type (multi-choice, free-form),
metadata, query_wo, query_cot; split testmini (3,940).
"""

from data_tools.convert.sources.source import (
    IN_THE_IMAGE,
    Draft,
    Row,
    Source,
    answer_of,
    kept,
    numbered_objects,
    optional_text,
    text_of,
)


def draft(row: Row) -> Draft:
    """What a row of MathVerse says; raises ValueError for one that cannot be used."""
    vision_only = row["problem_version"] == "Vision Only" and not optional_text(row, "question")
    return Draft(
        IN_THE_IMAGE if vision_only else text_of(row, "question"),
        answer_of(row, "answer"),
        [row["image"]],
        extra=kept(row, "sample_index", "problem_index", "problem_version", "question_type", "metadata"),
    )


SOURCE = Source(
    "mathverse",
    ("question", "image", "answer", "problem_version"),
    draft,
    hub="AI4Math/MathVerse",
    config="testmini",
    splits=("testmini",),
    read=numbered_objects,
)
