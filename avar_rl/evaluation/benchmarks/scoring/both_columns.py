"""One response in two columns: `official`, the benchmark's own rules, and `ours`, the project's grader.

`official` sees the final text of the model's turn (`official.reading.final_text`), `ours` the turn as it is. A
benchmark's gold is made ready for the grader here: the letters of all options with the gold's text, MathVista's unit
and precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from avar_rl.evaluation.benchmarks.scoring.official import (
    hallusionbench,
    mathverse,
    mathvision,
    mathvista,
    mmmu,
    mmmu_pro,
    mmstar,
)
from avar_rl.evaluation.benchmarks.scoring.official.reading import UNPARSED, Reading, final_text
from data_tools.formats.sample import DataSample, known_options, letters
from rewards.grading import DEFAULT, Policy, check_gold, grade_response
from rewards.grading.quantity import quantity
from rewards.grading.text.normalise import normalise

OFFICIAL: dict[str, Callable[[DataSample, str], Reading]] = {
    "mathvista": mathvista.read,
    "mathvision": mathvision.read,
    "mathvision_testmini": mathvision.read,
    "mathverse": mathverse.read,
    "mathverse_vision_only": mathverse.read,
    "mmmu": mmmu.read,
    "mmmu_pro": mmmu_pro.read,
    "mmstar": mmstar.read,
    "hallusionbench": hallusionbench.read,
}


@dataclass(frozen=True)
class OurVerdict:
    """What the project's grader says: `right` is None where it is undecided, or the gold cannot be scored."""

    answer: str | None
    right: bool | None


def turn_of(record: Mapping[str, Any]) -> str:
    """The whole turn of the model in a record of a response: what it was made to begin with, and what it wrote."""
    return (record.get("prefill") or "") + record["response"]


def score(benchmark: str, sample: DataSample, record: Mapping[str, Any]) -> dict[str, Any]:
    """The line of a scored file for a record of a response to `sample`; without a judge's column, which is None."""
    turn = turn_of(record)
    official = by_official_rules(benchmark, sample, turn)
    return {
        "id": record["id"],
        "sample": record["sample"],
        "official": asdict(official) | {"parsed": official.parsed},
        "ours": asdict(by_our_grader(sample, turn)),
        "judge": None,
    }


def by_official_rules(benchmark: str, sample: DataSample, turn: str) -> Reading:
    """What the benchmark's own rules say of a model's turn. An unclosed thought does not parse."""
    text = final_text(turn)
    return UNPARSED if text is None else OFFICIAL[benchmark](sample, text)


def by_our_grader(sample: DataSample, turn: str) -> OurVerdict:
    """What the project's grader says of a model's turn."""
    question = gradable(sample)
    if not question.golds:
        return OurVerdict(None, None)
    verdict = grade_response(turn, question.golds, options=question.options, policy=question.policy)
    return OurVerdict(verdict.prediction or None, verdict.equivalent)


@dataclass(frozen=True)
class Gradable:
    """A question as the grader takes it; `golds` are () where none of its golds can be scored."""

    golds: tuple[str, ...]
    options: tuple[str, ...]
    policy: Policy


def gradable(sample: DataSample) -> Gradable:
    """A question of a benchmark as the grader takes it."""
    options = known_options(sample)
    golds = _same_letters(sample.gold, options) or tuple(_with_unit(gold, sample) for gold in sample.golds)
    policy = DEFAULT
    if sample.extra.get("answer_type") == "float" and (precision := sample.extra.get("precision")) is not None:
        policy = replace(DEFAULT, precision=int(precision))  # MathVista rounds, as its questions ask
    return Gradable(tuple(gold for gold in golds if _is_scorable(gold)), options, policy)


def _same_letters(gold: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """The letters of all options with the text of the gold's, which comes first; () where the gold is no letter."""
    known = letters(len(options))
    if len(gold) != 1 or gold not in known:
        return ()
    text = options[known.index(gold)].strip()
    same = [letter for letter, option in zip(known, options, strict=True) if text and option.strip() == text]
    return (gold, *(letter for letter in same if letter != gold))


def _with_unit(gold: str, sample: DataSample) -> str:
    """MathVista's gold with the unit that its question asks for, where the grader can read that."""
    unit = sample.extra.get("unit")
    found = quantity(normalise(f"{gold} {unit}")) if unit else None
    return f"{gold} {unit}" if found and found.unit else gold


@lru_cache(maxsize=65536)
def _is_scorable(gold: str) -> bool:
    try:
        check_gold(gold)
    except ValueError:
        return False
    return True


def score_all(
    benchmark: str, samples: Mapping[str, DataSample], records: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The scored lines of records, in their order; `samples` by id.

    Raises:
        ValueError: a record names a question that is not among them, or lacks what the figures need.
    """
    for record in records:
        if record["id"] not in samples:
            raise ValueError(f"{benchmark}: a response is to question {record['id']}, which is not among those asked")
        if missing := [key for key in ("tokens", "truncated") if key not in record]:
            raise ValueError(f"{benchmark}: the response to {record['id']} lacks {', '.join(missing)}")
    return [score(benchmark, samples[record["id"]], record) for record in records]
