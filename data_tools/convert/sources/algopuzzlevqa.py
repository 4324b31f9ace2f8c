"""AlgoPuzzleVQA, the hub's `declare-lab/AlgoPuzzleVQA`: 1,800 generated puzzles of 18 kinds.

Schema: image (Image), question, options [str] (two or more, shuffled), answer (the text of the right option), solution,
and further columns a puzzle; the only split is called data.
"""

from data_tools.convert.sources.source import Draft, Row, Source, answer_of, kept, letter_of, options_of, text_of


def draft(row: Row) -> Draft:
    """What a row of AlgoPuzzleVQA says; raises ValueError for one that cannot be used."""
    options = options_of(row, "options")
    return Draft(
        text_of(row, "question"),
        letter_of(answer_of(row, "answer"), options),
        [row["image"]],
        options,
        extra=kept(row, "solution"),
    )


SOURCE = Source(
    "algopuzzlevqa",
    ("image", "question", "options", "answer"),
    draft,
    hub="declare-lab/AlgoPuzzleVQA",
    splits=("data",),
)
