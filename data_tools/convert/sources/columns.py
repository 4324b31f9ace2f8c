"""Your own parquet, JSON or JSONL, with columns named by options: one question a row, images as bytes or as paths.

Schema: question, answer (a text, a number or a list), and perhaps images (an image or a list: encoded bytes,
{bytes, path}, paths relative to the file, base64 or data URLs), options, response (a worked one) and evidence. Options
are a list, a mapping such as {"A": "red", "B": "blue"}, or one of these as JSON or Python writes it in a text. Evidence
is where in the images the answer is to be seen: a list of boxes [x0, y0, x1, y1] in pixels for each image (of a single
image also the boxes alone, or the one box), or a text that writes it down.
A list of several answers does not say whether any or all of them are wanted: its row is rejected, or, without options
and with `--several-answers any`, each of them is right.

With options, the answer is the text of one, its letter, or its number. A whole number that is no option's text is the
place of an option, counted from 0 or from 1: which of them, the whole file must say (a first pass reads it), or
`--answer-index`. It says so where all its answers are whole numbers, all fit one of the two counts and some do not fit
the other, and none is the text of another option than the one it would count to. Otherwise these rows are rejected.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from data_tools.convert.sources.source import (
    Draft,
    Row,
    Source,
    all_answers_of,
    answer_of,
    images_of,
    letter_of,
    optional_text,
    options_of,
    text_of,
)
from data_tools.convert.sources.values import evidence_value
from data_tools.formats.sample import letters

Index = Literal["detect", "0", "1", "none", "unclear"]
INDEXES = ("detect", "0", "1", "none")
INDEX_HELP = "a whole number as answer is a place counted from 0 or 1, or (none) a text (default: as the file says)"
Several = Literal["reject", "any"]
SEVERAL = ("reject", "any")
SEVERAL_HELP = "a list of several answers, without options: reject the row, or any of them is right (default reject)"
EVIDENCE_HELP = "boxes [x0, y0, x1, y1] in pixels, x1 and y1 exclusive, a list for each image: where the answer is seen"
SAY = "say --answer-index 0 or 1, or none where numbers are texts of options"
_WHOLE_NUMBER = re.compile(r"[0-9]{1,3}")


@dataclass(frozen=True)
class Columns:
    """The names of the columns that hold question, gold answer, images, options, a worked response and evidence boxes.

    None for those of the last four that there are not. `index` says what a whole number is as an answer to a multiple
    choice: a place counted from "0" or "1", or a text of an option as any other ("none"); "detect": as the whole file
    says; "unclear": the file does not say it. `several` says what a list of several answers is, without options.
    """

    question: str = "question"
    gold: str = "answer"
    images: str | None = "images"
    options: str | None = None
    response: str | None = None
    evidence: str | None = None
    index: Index = "detect"
    several: Several = "reject"

    @classmethod
    def of_arguments(cls, args: argparse.Namespace) -> Columns:
        """The columns that the options `--question-column`, …, `--answer-index` of a command name."""
        return cls(
            args.question_column,
            args.answer_column,
            args.images_column,
            args.options_column,
            args.response_column,
            args.evidence_column,
            args.answer_index,
            args.several_answers,
        )

    def named(self) -> tuple[str, ...]:
        """The columns that the rows must have."""
        names = (self.question, self.gold, self.images, self.options, self.response, self.evidence)
        return tuple(name for name in names if name is not None)

    def draft(self, row: Row) -> Draft:
        """What a row with these columns says; raises ValueError for one that cannot be used."""
        options = options_of(row, self.options) if self.options else []
        if self.several == "any" and not options:
            gold, *others = all_answers_of(row, self.gold)
        else:
            gold, others = answer_of(row, self.gold), []
        images = images_of(row, self.images) if self.images else []
        return Draft(
            text_of(row, self.question),
            self.letter(gold, options) if options else gold,
            images,
            options,
            (optional_text(row, self.response) or None) if self.response else None,
            other_golds=others,
            evidence=evidence_value(row[self.evidence], self.evidence, len(images)) if self.evidence else (),
        )

    def letter(self, gold: str, options: list[str]) -> str:
        """The letter of the option that `gold` is, names or counts to; ValueError where it is none of them."""
        if not _WHOLE_NUMBER.fullmatch(gold):
            return letter_of(gold, options)
        if self.index in ("detect", "none"):
            if gold not in options:
                raise ValueError(f"column {self.gold}: {gold} is the text of none of the options {options}; {SAY}")
            return letters(len(options))[options.index(gold)]
        if self.index == "unclear":
            raise ValueError(
                f"column {self.gold}: {gold} may be the text of an option, or its place counted from 0 or from 1,"
                f" and the file does not say which; {SAY}"
            )
        place = int(gold) - int(self.index)
        if not 0 <= place < len(options):
            raise ValueError(
                f"column {self.gold}: {gold}, counted from {self.index}, is none of {len(options)} options"
            )
        return letters(len(options))[place]

    def source(self, name: str = "columns") -> Source:
        """A source whose rows have these columns; `name` becomes the samples' source and begins their ids."""
        survey = (lambda rows: self.settled(rows).source(name)) if self.options and self.index == "detect" else None
        return Source(name, self.named(), self.draft, survey=survey, surveyed=(self.gold, self.options or ""))

    def settled(self, rows: Iterable[Row]) -> Columns:
        """These columns with the `index` that the rows, all of a file, speak for."""
        tally = _Tally()
        for row in rows:
            try:
                options, gold = options_of(row, self.options or ""), answer_of(row, self.gold)
                if options:
                    tally.add(gold, options)
            except ValueError:
                continue  # the row will be rejected with this reason when it is drafted
        return replace(self, index=tally.index())


@dataclass
class _Tally:
    """What whole numbers can be in the rows seen: texts of options in all of them (`texts`), beyond doubt in some
    (`surely_texts`); places counted from 0, from 1, in all of them, and the text of another option in some (`clash`).
    `worded`: some answers are letters or texts."""

    texts: bool = True
    surely_texts: bool = False
    worded: bool = False

    def __post_init__(self) -> None:
        self.fits, self.clash = [True, True], [False, False]

    def add(self, gold: str, options: list[str]) -> None:
        """Notes the answer to one row; one that can be nothing says nothing."""
        text = options.index(gold) if gold in options else None
        if not _WHOLE_NUMBER.fullmatch(gold):
            self.worded |= text is not None or gold in letters(len(options))
            return
        places = [int(gold) - start for start in (0, 1)]
        fits = [0 <= place < len(options) for place in places]
        if text is None and not any(fits):
            return
        self.texts &= text is not None
        self.surely_texts |= not any(fits)
        self.fits = [a and b for a, b in zip(self.fits, fits, strict=True)]
        self.clash = [a or text not in (None, place) for a, place in zip(self.clash, places, strict=True)]

    def index(self) -> Index:
        """What a whole number is."""
        if self.texts or self.surely_texts:
            return "none"
        if self.worded or sum(self.fits) != 1:
            return "unclear"
        start = self.fits.index(True)
        return "unclear" if self.clash[start] else ("0", "1")[start]


SOURCE = Columns().source()
