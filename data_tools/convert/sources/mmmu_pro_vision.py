"""MMMU-Pro with the whole question in the image, configuration `vision` of the hub's `MMMU/MMMU_Pro`, and its like.

Schema: id, image (Image: a screenshot or photo with the whole question), options (a list in a text, up to ten), answer
(a letter), subject; split test (1,730).
VLMEvalKit's TSV has the options in columns A, B, … or `options`, and `category` for the subject.
"""

from data_tools.convert.sources.mmmu import listed_options, official_columns
from data_tools.convert.sources.source import (
    IN_THE_IMAGE,
    Draft,
    Row,
    Source,
    answer_of,
    lettered_columns,
    named_letter,
)


def draft(row: Row) -> Draft:
    """What a row of MMMU-Pro's vision setting says; raises ValueError for one that cannot be used."""
    options = listed_options(row)
    gold = named_letter(answer_of(row, "answer"), options)
    return Draft(IN_THE_IMAGE, gold, [row["image"]], extra=official_columns(row) | {"options": options})


def from_tsv(row: Row) -> Row:
    """A row of VLMEvalKit's TSV as one of the hub's."""
    named = {"id": row["index"], "options": lettered_columns(row), "subject": row.get("category")}
    return named | dict(row)


SOURCE = Source(
    "mmmu_pro_vision",
    ("id", "image", "options", "answer"),
    draft,
    hub="MMMU/MMMU_Pro",
    configs=("vision",),
    splits=("test",),
    tsv=from_tsv,
    identity=("id",),
)
