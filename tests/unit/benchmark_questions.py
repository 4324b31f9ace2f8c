"""Questions of benchmarks with the columns that scoring reads, and scored lines, for tests."""

from collections.abc import Sequence
from typing import Any

from data_tools.formats.sample import DataSample


def asked(
    gold: str, *, id_: str = "b/part/1", options: Sequence[str] = (), other_golds: Sequence[str] = (), **extra: Any
) -> DataSample:
    """A question; `extra` are official columns, with the gold as `answer` unless they say another."""
    return DataSample(
        id_,
        "s",
        "What is it?",
        gold,
        "choice" if options else "words",
        options=tuple(options),
        other_golds=tuple(other_golds),
        extra={"answer": gold} | extra,
    )


def in_its_text(gold: str, options: Sequence[str], **extra: Any) -> DataSample:
    """A question whose options stand in its text or its image already."""
    extra = {"answer": gold, "options": list(options)} | extra
    return DataSample("b/part/1", "s", "What is it?", gold, "choice", extra=extra)


def line(id_: str, right: bool | None, sample: int | None = None, answer: str | None = "x") -> dict[str, Any]:
    """A scored line with the same verdict in both columns."""
    official = {"answer": answer, "right": bool(right), "parsed": answer is not None}
    ours = {"answer": answer, "right": right}
    return {"id": id_, "sample": sample, "official": official, "ours": ours, "judge": None}
