"""MMMU, the hub's `MMMU/MMMU` (30 configurations, a subject each) or `lmms-lab/MMMU`, and parquet, JSON or TSV files
like them.

Schema: id (validation_Art_1), question, options (a list in a text, up to 9; `[]` for open questions), explanation,
image_1, …, image_7 (Image or none), img_type, answer (a letter; for open questions a text, or several as a list in a
text), topic_difficulty, question_type (multiple-choice, open), subfield; splits validation (900) and dev (150).
`<image 2>` in the question or an option means column image_2, whose picture stands there, twice where it is named
twice; those that no text names come first.
VLMEvalKit's TSV has dev and validation in one file, the options in columns A, B, …, a list of base64 in `image`, and
`category` for the subject.
"""

from __future__ import annotations

import re
from typing import Any

from data_tools.convert.sources.source import (
    Draft,
    Row,
    Source,
    all_answers_of,
    kept,
    lettered_columns,
    named_letter,
    needs_question_type,
    optional_text,
    text_of,
)
from data_tools.convert.sources.values import list_value, missing, text_value
from data_tools.formats.rows import IMAGE_PLACEHOLDER

DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
SUBJECTS = {subject: discipline for discipline, subjects in DISCIPLINES.items() for subject in subjects}
IMAGES = 7  # columns image_1, …
OFFICIAL = ("id", "img_type", "topic_difficulty", "question_type", "subfield", "answer")
_MARK = re.compile(r"<image ([0-9]{1,2})>")
_SUBJECT = re.compile(r"[a-z]+_(\w+)_[0-9]+")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def draft(row: Row) -> Draft:
    """What a row of MMMU says; raises ValueError for one that cannot be used."""
    options, golds = listed_options(row), all_answers_of(row, "answer")
    if options:
        golds = [named_letter(golds[0], options)]
    question, options, images = _placed(text_of(row, "question"), options, row)
    return Draft(question, golds[0], images, options, extra=official_columns(row), other_golds=golds[1:])


def official_columns(row: Row) -> dict[str, Any]:
    """What `extra` keeps of a row of MMMU or MMMU-Pro, with its subject and discipline."""
    extra = kept(row, *OFFICIAL)
    named = _SUBJECT.fullmatch(str(extra.get("id", "")))
    subject = optional_text(row, "subject").replace(" ", "_") or (named.group(1) if named else "")
    if subject:
        extra |= {"subject": subject, "discipline": SUBJECTS.get(subject, "other")}
    return extra


def listed_options(row: Row) -> list[str]:
    """The texts of the options in a row of MMMU or MMMU-Pro, A first; [] for none. An empty one keeps its letter.

    Raises:
        ValueError: they are no list.
    """
    value = row["options"]
    try:
        entries = list_value(value, "options")
    except ValueError:  # `\\frac` written with one backslash, which Python reads as a form feed
        entries = list_value(_ESCAPE.sub(_doubled, str(value)), "options")
    if isinstance(value, str) and value.strip() and entries == [value]:
        raise ValueError(f"column options is a text that is no list of options: {value[:80]!r}")
    return [text_value(entry, "options") for entry in entries]


def _doubled(escape: re.Match[str]) -> str:
    return "\\" + escape[0] if escape[1].isalpha() else escape[0]


def _placed(question: str, options: list[str], row: Row) -> tuple[str, list[str], list[Any]]:
    """Question and options with an `<image>` at every mark, and the images in that order."""
    columns = {number: row.get(f"image_{number}") for number in range(1, IMAGES + 1)}
    named: list[int] = []

    def show(mark: re.Match[str]) -> str:
        number = int(mark.group(1))
        if missing(columns.get(number)):
            raise ValueError(f"the text names {mark.group()}, but column image_{number} is empty")
        named.append(number)
        return IMAGE_PLACEHOLDER

    texts = [_MARK.sub(show, text) for text in (question, *options)]
    first = [number for number, image in columns.items() if number not in named and not missing(image)]
    images = [columns[number] for number in (*first, *named)]
    return IMAGE_PLACEHOLDER * len(first) + texts[0], texts[1:], images


def from_tsv(row: Row) -> Row:
    """A row of VLMEvalKit's TSV as one of the hub's."""
    images, options = list_value(row.get("image"), "image"), lettered_columns(row)
    named = {"id": row["index"], "options": options, "subject": row.get("category")}
    named["question_type"] = "multiple-choice" if options else "open"
    return named | dict(row) | {f"image_{number}": image for number, image in enumerate(images, 1)}


def holds(row: Row, split: str) -> bool:
    """Whether a row is of a split, where it says its own; of a split that is none of MMMU's all are."""
    return split not in ("dev", "validation", "test") or row.get("split", split) == split


SOURCE = Source(
    "mmmu",
    ("id", "question", "options", "answer", "image_1"),
    draft,
    hub="MMMU/MMMU",
    configs=tuple(sorted(SUBJECTS)),
    splits=("validation", "dev"),
    tsv=from_tsv,
    holds=holds,
    identity=("id",),
    official=needs_question_type,
)
