"""MMStar, the hub's `Lin-Chen/MMStar`, and parquet, JSON or TSV files like it.

Schema: index, question (it ends with `Options: A: …, B: …`), image (Image), answer (a letter), category (6),
l2_category (18), meta_info; split val (1,500). The options are taken out of the question, which `extra` has as the file
does. Where they cannot be told apart they stay in it.
VLMEvalKit's TSV has the options in columns A, B, C, D.
"""

from data_tools.convert.sources.source import (
    Draft,
    Row,
    Source,
    answer_of,
    kept,
    lettered_columns,
    text_of,
)
from data_tools.formats.sample import letters

MARK = "Options:"


def draft(row: Row) -> Draft:
    """What a row of MMStar says; raises ValueError for one that cannot be used."""
    whole, answer = text_of(row, "question"), answer_of(row, "answer")
    question, options = split_options(whole)
    if not question or answer not in tuple(letters(len(options))):
        question, options = whole, []
    extra = kept(row, "index", "category", "l2_category", "meta_info", "answer") | {"question": whole}
    if answer not in tuple(letters(26)):
        raise ValueError(f"the answer {answer[:40]!r} is no letter")
    return Draft(question, answer, [row["image"]], options, extra=extra)


def split_options(question: str) -> tuple[str, list[str]]:
    """The question, and the texts of the options behind its last `Options:`; [] where there are no two."""
    stem, _, listed = question.rpartition(MARK)
    listed = f", {listed.strip()}"
    starts: list[int] = []
    for letter in letters(26):
        start = listed.find(f", {letter}: ", starts[-1] if starts else 0)
        if start < 0 or (not starts and start):
            break
        starts.append(start)
    if len(starts) < 2:
        return question, []
    ends = [*starts[1:], len(listed)]
    texts = [listed[start + 5 : end].strip() for start, end in zip(starts, ends, strict=True)]
    return stem.strip(), texts


def from_tsv(row: Row) -> Row:
    """A row of VLMEvalKit's TSV as one of the hub's."""
    options = lettered_columns(row)
    listed = ", ".join(f"{letter}: {text}" for letter, text in zip(letters(len(options)), options, strict=True))
    question = text_of(row, "question")
    whole = f"{question}\n{MARK} {listed}" if options and MARK not in question else question
    return {"l2_category": row.get("l2-category")} | dict(row) | {"question": whole}


SOURCE = Source(
    "mmstar",
    ("question", "image", "answer"),
    draft,
    hub="Lin-Chen/MMStar",
    configs=("val",),
    splits=("val",),
    tsv=from_tsv,
    identity=("index",),
)
