"""MMMU-Pro with ten options, configuration `standard (10 options)` of the hub's `MMMU/MMMU_Pro`, and files like it.

Schema: as `mmmu`, with up to ten options and a column subject; split test (1,730). The options were shuffled;
`<image 2>` in one still means column image_2.
VLMEvalKit's TSV as that of `mmmu`.
"""

from data_tools.convert.sources import mmmu
from data_tools.convert.sources.source import Draft, Row, Source


def draft(row: Row) -> Draft:
    """What a row of MMMU-Pro says; raises ValueError for one that cannot be used."""
    return mmmu.draft(row)


SOURCE = Source(
    "mmmu_pro",
    ("id", "question", "options", "answer", "image_1"),
    draft,
    hub="MMMU/MMMU_Pro",
    configs=("standard (10 options)",),
    splits=("test",),
    tsv=mmmu.from_tsv,
    identity=("id",),
)
