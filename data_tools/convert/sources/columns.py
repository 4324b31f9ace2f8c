"""Your own parquet, JSON or JSONL, with columns named by options: one question a row, images as bytes or as paths.

Schema: question, answer, and perhaps images (an image or a list: encoded bytes, {bytes, path}, or paths relative to the
file), options [str] (the answer is then a letter or the text of an option) and response (a worked one).
"""

from dataclasses import dataclass

from data_tools.convert.sources.source import Draft, Row, Source, letter_of, listed, text_of


@dataclass(frozen=True)
class Columns:
    """Which column of the source holds what; the last three may be absent."""

    question: str = "question"
    answer: str = "answer"
    images: str | None = "images"
    options: str | None = None
    response: str | None = None

    def named(self) -> tuple[str, ...]:
        names = (self.question, self.answer, self.images, self.options, self.response)
        return tuple(name for name in names if name is not None)

    def draft(self, row: Row) -> Draft:
        options = [str(option).strip() for option in listed(row[self.options])] if self.options else []
        answer = text_of(row, self.answer)
        return Draft(
            text_of(row, self.question),
            letter_of(answer, options) if options else answer,
            listed(row[self.images]) if self.images else [],
            options,
            row[self.response] if self.response else None,
        )

    def source(self, name: str = "columns") -> Source:
        return Source(name, self.named(), self.draft)


SOURCE = Columns().source()
