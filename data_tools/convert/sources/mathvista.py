"""MathVista, the hub's `AI4Math/MathVista`, and parquet, JSON or TSV files like it.

Schema: pid, question, image (path), decoded_image (Image), choices [str] or none, unit, precision, answer (the text
of the right choice, or a value), question_type (multi_choice, free_form), answer_type (text, integer, float, list),
metadata, query; splits testmini (1,000) and test (5,141, without answers: all rejected). A JSON release is one object
of numbered rows, with `image` only. Three rows have a choice twice; the choices of 15 are letters.
For training, unit and precision are said in the question, as they decide the answer.
VLMEvalKit's TSV has the whole query as `question`; the question and the precision are read from it.
"""

import re
from dataclasses import replace

from data_tools.convert.sources.source import (
    Draft,
    Row,
    Source,
    answer_of,
    columns_within,
    kept,
    letter_of,
    numbered_objects,
    optional_text,
    options_of,
    text_of,
)

_HEAD = re.compile(r"\AHint: [^\n]*\n+Question: ")
_PLACES = re.compile(r"floating-point number with (one|two|three) decimal place")


def draft(row: Row) -> Draft:
    """What a row of MathVista says; raises ValueError for one that cannot be used."""
    options = options_of(row, "choices")
    answer = answer_of(row, "answer")
    names = ("pid", "unit", "precision", "question_type", "answer_type", "query", "answer")
    return Draft(
        text_of(row, "question"),
        letter_of(answer, options) if options else answer,
        [row.get("decoded_image") or row["image"]],
        options,
        extra=columns_within(row, "metadata") | kept(row, *names),
    )


def worded(draft: Draft) -> Draft:
    """The draft with unit and precision in its question."""
    unit, precision = optional_text(draft.extra, "unit"), optional_text(draft.extra, "precision")
    hints = [f"unit: {unit}"] if unit else []
    if draft.extra.get("answer_type") == "float" and precision not in ("", "0"):
        hints.append(f"decimal places: {precision}")
    return replace(draft, question=f"{draft.question} ({'; '.join(hints)})") if hints else draft


def official(draft: Draft) -> tuple[str, ...]:
    """A float is rounded to its precision before it is compared."""
    precision = ("precision",) if draft.extra.get("answer_type") == "float" else ()
    return ("question_type", "answer_type", *precision)


def from_tsv(row: Row) -> Row:
    """A row of VLMEvalKit's TSV as one of the hub's."""
    query = text_of(row, "question")
    places = _PLACES.search(query)
    precision = None
    if row.get("answer_type") == "float":
        decimals = len(optional_text(row, "answer").partition(".")[2])
        precision = float(("one", "two", "three").index(places.group(1)) + 1 if places else decimals)
    named = {"pid": row.get("pid") or row["index"], "query": query, "precision": precision}
    return named | dict(row) | {"question": asked_in(query)}


def asked_in(query: str) -> str:
    """The question in a query "Hint: …\\nQuestion: …\\nChoices:\\n…"; any other text as it is."""
    head = _HEAD.match(query)
    return query[head.end() :].partition("\nChoices:")[0].strip() if head else query


SOURCE = Source(
    "mathvista",
    ("question", "image", "choices", "answer"),
    draft,
    hub="AI4Math/MathVista",
    splits=("testmini",),
    read=numbered_objects,
    for_training=worded,
    tsv=from_tsv,
    identity=("pid",),
    official=official,
)
