"""Geometry3K, the hub's `hiyouga/geometry3k`: questions about drawn plane geometry.

Schema: images [Image], problem (with one `<image>` an image), answer (a number or an expression in LaTeX); splits
train (2,101), validation (300), test (601).
"""

from data_tools.convert.sources.source import Draft, Row, Source, answer_of, images_of, text_of


def draft(row: Row) -> Draft:
    """What a row of Geometry3K says; raises ValueError for one that cannot be used."""
    return Draft(text_of(row, "problem"), answer_of(row, "answer"), images_of(row, "images"))


SOURCE = Source(
    "geometry3k",
    ("images", "problem", "answer"),
    draft,
    hub="hiyouga/geometry3k",
    splits=("test", "validation", "train"),
)
