r"""SolidGeo, `HarryYancy/SolidGeo` on the hub and on GitHub: 3,113 questions of solid geometry, some in Chinese.

Schema: question (image places as `<ImageHere>` or `<image1>`; options often stand in it; empty where the image holds
it), choices [str], image [paths, with backslashes], answer (LaTeX, at times `h = 3` or followed by an analysis),
solution [str], answer_type (single-step, multi-step, choice), problem_type [str], complexity_level, source, qa_id.
The release file data/SolidGeo.json is one object of numbered rows. Answers of several parts (multi-step) are as a
rule no gradable gold and get rejected as such.
"""

import re
from collections.abc import Sequence

from data_tools.convert.sources.source import (
    IN_THE_IMAGE,
    Draft,
    Row,
    Source,
    answer_of,
    images_of,
    kept,
    named_letter,
    numbered_objects,
    optional_text,
    options_of,
    place_images,
)

MARKERS = r"<ImageHere>|<image_?\d+>|<image>"
REST = re.compile(r"[【\[]\s*(?:Analysis|Detailed Solution|分析|详解)\s*[】\]]|\\# ?\\#|##", re.IGNORECASE)
NAMED_VALUE = re.compile(r"\$?(?:\\mathrm\{)?[A-Za-z][A-Za-z ]*+\}?\s*+\$?\s*+=\s*(?=\S)")


def gold_of(answer: str) -> str:
    """The answer without an analysis or a second form behind it, and without the name of what was asked before it."""
    text = REST.split(answer)[0].strip().removeprefix("解").strip()
    named = NAMED_VALUE.match(text)
    if named:
        text = text[named.end() :].strip()
    return text.replace("$", "").strip()


def question_of(row: Row, options: Sequence[str], count: int) -> str:
    """The question of a row with `count` images, without a copy of its options at the end."""
    question = optional_text(row, "question") or IN_THE_IMAGE
    if options:
        start = question.find(f"A. {options[0]}")
        question = question[:start] if start > 0 else question
    return place_images(question.rstrip("\n #"), MARKERS, count)


def draft(row: Row) -> Draft:
    """What a row of SolidGeo says; raises ValueError for one that cannot be used."""
    images = [image.replace("\\", "/") if isinstance(image, str) else image for image in images_of(row, "image")]
    options = options_of(row, "choices")
    gold = gold_of(answer_of(row, "answer"))
    letter = re.fullmatch(r"(?:\\(?:mathrm|text)\{)?\(?([A-Z])\)?\}?\.?", gold)
    if row["answer_type"] == "choice" and letter:
        gold = letter.group(1)
    return Draft(
        question_of(row, options, len(images)),
        named_letter(gold, options) if options else gold,
        images,
        options,
        extra=kept(row, "qa_id", "answer_type", "problem_type", "complexity_level", "source"),
    )


SOURCE = Source(
    "solidgeo",
    ("question", "choices", "image", "answer", "answer_type"),
    draft,
    hub="HarryYancy/SolidGeo",
    read=numbered_objects,
)
