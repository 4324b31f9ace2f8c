r"""MathVision (MATH-V), the hub's `MathLLMs/MathVision`, and parquet, JSON or TSV files like it.

Schema: id, question, options [str] (five, or none), image (path), decoded_image (Image), answer (a letter, or a value),
solution, level (1 to 5), subject (16); splits testmini (304) and test (3,040). `<image1>`, … in a text name parts of
the one picture and stay as they are. Options that are only A to E stand in the picture. Two rows have a letter as
answer and no options. Some answers end with a unit in braces, `69{degrees}`, or begin a command with a form feed, the
lost `\f`: the gold has them mended, `extra` as the file does.
VLMEvalKit's TSV has `choices` for options, which may stand in the question too, and `category` for the subject.
"""

import re

from data_tools.convert.sources.mathvista import asked_in
from data_tools.convert.sources.source import (
    Draft,
    Row,
    Source,
    answer_of,
    kept,
    letter_of,
    optional_text,
    options_of,
    text_of,
)
from data_tools.formats.sample import letters

BARE = list("ABCDE")
_UNIT = re.compile(r"\{([a-z]+)\}\Z")


def draft(row: Row) -> Draft:
    """What a row of MathVision says; raises ValueError for one that cannot be used."""
    options, gold = options_of(row, "options"), _mended_gold(row)
    if options and gold not in tuple(letters(len(options))):
        gold = letter_of(gold, options)
    extra = kept(row, "id", "level", "subject", "answer")
    if options == BARE:
        options, extra = [], extra | {"options": options}
    return Draft(text_of(row, "question"), gold, [row.get("decoded_image") or row["image"]], options, extra=extra)


def _mended_gold(row: Row) -> str:
    raw = row["answer"]  # a form feed at its start would be stripped as a space
    answer = answer_of({"answer": raw.replace("\f", r"\f") if isinstance(raw, str) else raw}, "answer")
    unit = _UNIT.search(answer)
    if unit is None:
        return answer
    return answer[: unit.start()].rstrip() + (r"^\circ" if unit.group(1) == "degrees" else f" {unit.group(1)}")


def from_tsv(row: Row) -> Row:
    """A row of VLMEvalKit's TSV as one of the hub's."""
    named = {"id": row["index"], "options": row.get("choices"), "subject": row.get("category")}
    question, options = asked_in(optional_text(row, "question")), options_of(named, "options")
    if options:
        question = question.partition(f"(A) {options[0]}")[0].strip() or question
    return named | dict(row) | {"question": question}


SOURCE = Source(
    "mathvision",
    ("question", "image", "options", "answer"),
    draft,
    hub="MathLLMs/MathVision",
    splits=("testmini", "test"),
    tsv=from_tsv,
    identity=("id",),
)
