"""HallusionBench, the hub's `lmms-lab/HallusionBench`, and parquet, JSON or TSV files like it.

Schema: texts category (VD, VS), subcategory, visual_input (0, 1, 2), set_id, figure_id, question_id, question,
gt_answer ("0" no, "1" yes), gt_answer_details, filename, and image (Image); splits image (951) and non_image (178).
The JSON release has both, without `image`: `filename` is its path, empty for the latter.
VLMEvalKit's TSV has the ids in `index` (VD_figure_1_0_1_2: category, subcategory, visual input, set, figure, question),
`l2-category` for the subcategory and Yes or No as answer.
"""

from data_tools.convert.sources.source import Draft, Row, Source, answer_of, kept, optional_text, text_of

IDS = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id")
ANSWERS = {"0": "no", "1": "yes"}


def draft(row: Row) -> Draft:
    """What a row of HallusionBench says; raises ValueError for one that cannot be used."""
    answer = answer_of(row, "gt_answer")
    if answer not in ANSWERS:
        raise ValueError(f"column gt_answer is {answer[:40]!r}; it must be 0 or 1")
    ids = {name: text_of(row, name) for name in IDS}
    picture = row.get("image") or optional_text(row, "filename")
    return Draft(
        text_of(row, "question"),
        ANSWERS[answer],
        [picture] if picture else [],
        extra=kept(row, "gt_answer", "gt_answer_details", "filename") | ids | {"answer": answer},
    )


def holds(row: Row, split: str) -> bool:
    """Whether a row is of a split: those with an image are of `image`."""
    return bool(row.get("image") or row.get("filename")) == (split != "non_image")


def from_tsv(row: Row) -> Row:
    """A row of VLMEvalKit's TSV as one of the hub's."""
    ids, answer = text_of(row, "index").split("_"), text_of(row, "answer")
    if len(ids) != len(IDS):
        raise ValueError(f"column index is {row['index']!r}, not {len(IDS)} ids with underscores between them")
    gold = {text: number for number, text in ANSWERS.items()}.get(answer.lower(), answer)
    return dict(row) | dict(zip(IDS, ids, strict=True)) | {"gt_answer": gold}


SOURCE = Source(
    "hallusionbench",
    ("question", "gt_answer", *IDS),
    draft,
    hub="lmms-lab/HallusionBench",
    splits=("image", "non_image"),
    tsv=from_tsv,
    holds=holds,
    identity=IDS,
)
