"""MathVista, the hub's `AI4Math/MathVista`, and parquet or JSON files like it.

Schema: pid, question, image (path), decoded_image (Image), choices [str] or none, unit, precision, answer (the text
of the right choice, or a value), question_type (multi_choice, free_form), answer_type (text, integer, float, list),
metadata, query; splits testmini (1,000) and test (5,141, without answers: all rejected). A JSON release is one object
of numbered rows, with `image` only. Unit and precision are said in the question, as they decide the answer.
"""

from data_tools.convert.sources.source import (
    Draft,
    Row,
    Source,
    answer_of,
    kept,
    letter_of,
    numbered_objects,
    optional_text,
    options_of,
    text_of,
)


def draft(row: Row) -> Draft:
    """What a row of MathVista says; raises ValueError for one that cannot be used."""
    options = options_of(row, "choices")
    answer = answer_of(row, "answer")
    unit, precision = optional_text(row, "unit"), optional_text(row, "precision")
    hints = [f"unit: {unit}"] if unit else []
    if row.get("answer_type") == "float" and precision not in ("", "0"):
        hints.append(f"decimal places: {precision}")
    question = text_of(row, "question")
    return Draft(
        f"{question} ({'; '.join(hints)})" if hints else question,
        letter_of(answer, options) if options else answer,
        [row.get("decoded_image") or row["image"]],
        options,
        extra=kept(row, "pid", "question_type", "answer_type", "metadata"),
    )


SOURCE = Source(
    "mathvista",
    ("question", "image", "choices", "answer"),
    draft,
    hub="AI4Math/MathVista",
    splits=("testmini",),
    read=numbered_objects,
)
