"""M3CoT, the hub's `LightChen2333/M3CoT`: multiple choice over science, commonsense and mathematics.

Schema: id, category, image_id, question, choices [str], context, answer (the letter), rationale, split, image (Image,
empty in some rows), domain, topic; splits train, validation, test. A row without an image is rejected: its question
is about one. The context, where there is one, comes before the question.
"""

from data_tools.convert.sources.source import (
    Draft,
    Row,
    Source,
    answer_of,
    kept,
    named_letter,
    optional_text,
    options_of,
    text_of,
)


def draft(row: Row) -> Draft:
    """What a row of M3CoT says; raises ValueError for one that cannot be used."""
    if row["image"] is None:
        raise ValueError("column image is empty")
    options = options_of(row, "choices")
    context = optional_text(row, "context")
    question = text_of(row, "question")
    return Draft(
        f"{context}\n{question}" if context else question,
        named_letter(answer_of(row, "answer"), options),
        [row["image"]],
        options,
        extra=kept(row, "id", "domain", "topic", "category", "rationale"),
    )


SOURCE = Source(
    "m3cot",
    ("question", "choices", "answer", "image"),
    draft,
    hub="LightChen2333/M3CoT",
    splits=("test", "validation", "train"),
)
