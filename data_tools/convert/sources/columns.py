"""Your own parquet, JSON or JSONL, with columns named by options: one question a row, images as bytes or as paths.

Schema: question, answer, and perhaps images (an image or a list: encoded bytes, {bytes, path}, or paths relative to the
file), options [str] (the answer is then a letter or the text of an option) and response (a worked one).
"""

from dataclasses import dataclass

from data_tools.convert.sources.source import Draft, Row, Source, letter_of, listed, text_of


@dataclass(frozen=True)
class Columns:
    """The names of the columns that hold the question, the gold answer, images, options and a worked response.

    None for those of the last three that there are not.
    """

    question: str = "question"
    gold: str = "answer"
    images: str | None = "images"
    options: str | None = None
    response: str | None = None

    def named(self) -> tuple[str, ...]:
        """The columns that every row must have."""
        names = (self.question, self.gold, self.images, self.options, self.response)
        return tuple(name for name in names if name is not None)

    def draft(self, row: Row) -> Draft:
        """What a row with these columns says; raises ValueError for one that cannot be used."""
        options = [str(option).strip() for option in listed(row[self.options])] if self.options else []
        gold = text_of(row, self.gold)
        return Draft(
            text_of(row, self.question),
            letter_of(gold, options) if options else gold,
            listed(row[self.images]) if self.images else [],
            options,
            row[self.response] if self.response else None,
        )

    def source(self, name: str = "columns") -> Source:
        """A source whose rows have these columns; `name` becomes the samples' source and begins their ids."""
        return Source(name, self.named(), self.draft)


SOURCE = Columns().source()
