"""Measure how hard RL rows are for a model: `avar difficulty MODEL rl_train.parquet [--samples 8]`.

Draws responses to every row with vLLM, grades them as the accuracy reward does, and writes a copy of the file, by
default rl_train.rated.parquet, whose rows have `extra_info.pass_rate`: the share of the responses that are right. A
response on which the grader cannot decide counts neither as right nor as wrong; `extra_info.pass_samples` says how many
responses the share is of. `avar prepare --keep-pass 0.1-0.9 --curriculum` chooses training rows by it.

Sample as training will: the model that GRPO starts from, its temperature, its longest response. Every response is kept
beside the copy as soon as it is there (rl_train.rated.responses.jsonl), and the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avar_rl.evaluation.answering.generate import GenerationSettings
    from avar_rl.evaluation.answering.questions import Question, QuestionSet


@dataclass(frozen=True)
class Difficulty:
    """What became of the responses to one row: how many are right, how many wrong, on how many the grader cannot
    decide, and how many of all were cut off. `kind` is the family of the question, or else its data set."""

    kind: str
    right: int
    wrong: int
    undecided: int
    truncated: int

    @property
    def pass_rate(self) -> float | None:
        """The share of right responses among those that are decided; None where none is."""
        decided = self.right + self.wrong
        return self.right / decided if decided else None

    def keys(self) -> dict[str, Any]:
        """What a row's `extra_info` says of it."""
        return {"pass_rate": self.pass_rate, "pass_samples": self.right + self.wrong}


def difficulty(question: Question, responses: Sequence[Mapping[str, Any]]) -> Difficulty:
    """Grades the kept responses to a question, as the accuracy reward does."""
    from rewards.grading import grade_response

    golds = (question.gold, *question.other_golds)
    verdicts = [grade_response(kept["response"], golds, options=question.options).equivalent for kept in responses]
    right, wrong, undecided = (verdicts.count(verdict) for verdict in (True, False, None))
    return Difficulty(question.kind, right, wrong, undecided, sum(kept["truncated"] for kept in responses))


def measure(
    model: str, data: Path, out: Path, settings: GenerationSettings, limit: int | None = None, replicas: int = 1
) -> list[Difficulty]:
    """Draws the responses that are missing, grades all, and writes `out`, the rows of `data` with their pass rates.

    Args:
        limit: only the first so many rows are measured and written; None for all.
        replicas: engines side by side, on Ray where there are several.

    Raises:
        ValueError: bad rows, a model that cannot answer them, or kept responses that came about otherwise.
    """
    from tqdm import tqdm

    from avar_rl.attention.roles import Markup
    from avar_rl.evaluation.answering.questions import check_weights, load_processor, load_questions
    from avar_rl.evaluation.benchmarks.asking.records import origin_of_answers, read_records

    if out.suffix != ".parquet" or out.resolve() == data.resolve():
        raise ValueError(f"--out {out}: it must be a parquet file other than {data}")
    check_weights(model)
    processor = load_processor(model)
    Markup.from_tokenizer(processor.tokenizer)  # refuses a model type without span support before minutes are spent
    asked = load_questions(data, processor, limit)
    _check_ids(asked.questions, data)
    origin = origin_of_answers(model, processor, settings, replicas)
    origin |= {"data": {"hash": _hash(data)}, "limit": limit, "n": len(asked.questions)}
    _answer(model, asked, processor, settings, replicas, out, origin)

    kept: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in read_records(out.parent, out.stem):
        kept[record["id"]].append(record)
    questions = tqdm(asked.questions, desc="grading", unit="row", disable=None)
    found = [difficulty(question, kept[question.conversation.id]) for question in questions]
    write_rated(data, out, found)
    return found


def _check_ids(questions: Sequence[Question], data: Path) -> None:
    places: dict[str, int] = {}
    for place, question in enumerate(questions):
        first = places.setdefault(question.conversation.id, place)
        if first != place:
            name = question.conversation.id
            raise ValueError(f"{data}: rows {first} and {place} are both called {name}; make their ids differ")


def _hash(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _answer(
    model: str,
    asked: QuestionSet,
    processor: Any,
    settings: GenerationSettings,
    replicas: int,
    out: Path,
    origin: Mapping[str, Any],
) -> None:
    """Draws the responses that the file of kept ones lacks, and keeps each as soon as it is there."""
    from avar_rl.evaluation.answering.generate import AnswerRequest
    from avar_rl.evaluation.answering.replicas import open_engine
    from avar_rl.evaluation.benchmarks.asking.records import ResponsesFile
    from avar_rl.evaluation.benchmarks.asking.telling import ResponseProgress

    with ResponsesFile(out.parent, out.stem, origin) as file:
        requests = [
            AnswerRequest(question.conversation.id, question, sample)
            for question in asked.questions
            for sample in range(settings.samples)
            if (question.conversation.id, sample) not in file.done
        ]
        total = len(asked.questions) * settings.samples
        print(f"{out.name}: {total:,} responses, {total - len(requests):,} there", flush=True)
        if not requests:
            return
        with (
            open_engine(model, asked.limits, processor, settings, replicas) as engine,
            ResponseProgress(out.name, total, total - len(requests)) as progress,
        ):
            for finished in engine.answers(requests):
                file.append(finished)
                progress.add(len(finished), sum(len(response.ids) for _, response in finished))


def write_rated(data: Path, out: Path, found: Sequence[Difficulty]) -> None:
    """Writes the first rows of `data`, one for each of `found`, with what was found of them; whole or not at all."""
    import pyarrow as pa

    from data_tools.formats.rows import BatchWriter, joined_schema, parquet_rows

    keys = pa.struct([("pass_rate", pa.float64()), ("pass_samples", pa.int64())])
    with BatchWriter(out, joined_schema([data], pa.schema([("extra_info", keys)])), dict) as writer:
        for row, one in zip(parquet_rows(data), found, strict=False):
            writer.add(row | {"extra_info": (row.get("extra_info") or {}) | one.keys()})


def print_report(found: Sequence[Difficulty]) -> None:
    """Prints how pass rates are spread, and their means by kind of question."""
    from avar_rl.runtime.tables import console, cut, table
    from data_tools.pass_rates import histogram

    kinds = table(
        ("kind", "rows", "pass rate", "0 or 1", "responses", "undecided", "cut off"),
        text=("kind",),
        title="by kind: mean pass rate, rows that are never or always right, responses",
    )
    by_kind: dict[str, list[Difficulty]] = defaultdict(list)
    for one in found:
        by_kind[one.kind].append(one)
    for kind, rows in sorted(by_kind.items()):
        rates = [one.pass_rate for one in rows if one.pass_rate is not None]
        counts = (sum(rate in (0, 1) for rate in rates), sum(one.right + one.wrong + one.undecided for one in rows))
        counts += (sum(one.undecided for one in rows), sum(one.truncated for one in rows))
        kinds.add_row(cut(kind), str(len(rows)), f"{fmean(rates):.3f}" if rates else "-", *map(str, counts))
    console().print(kinds, histogram(one.pass_rate for one in found))
    between = sum(one.pass_rate not in (None, 0, 1) for one in found)
    print(f"{between} of {len(found)} rows ({between / len(found):.1%}) are right sometimes, not always")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avar difficulty", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="model directory or hub name")
    parser.add_argument("data", type=Path, metavar="DATA", help="parquet file of RL rows")
    parser.add_argument(
        "--out", type=Path, help="parquet file for the copy (default: DATA with the ending .rated.parquet)"
    )
    parser.add_argument("--samples", type=int, default=8, help="responses to each row (default 8)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the responses (default 1)")
    parser.add_argument("--max-new-tokens", type=int, default=1024, help="limit of a response (default 1024)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="measure and write the first N rows only (default: all)")
    parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs that share the model (default 1)")
    parser.add_argument("--batch", type=int, default=256, help="responses that an engine works at (default 256)")
    parser.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="engines side by side through Ray (default 1)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    out = options.out or options.data.with_suffix(".rated.parquet")
    try:
        from avar_rl.runtime.environment import prepare_environment

        prepare_environment()
        from avar_rl.evaluation.answering.generate import GenerationSettings
        from avar_rl.runtime.settings import Count, parse

        for name in ("samples", "replicas"):
            parse(Count, getattr(options, name), f"--{name}")
        names = ("max_new_tokens", "samples", "temperature", "seed", "tensor_parallel", "batch")
        settings = parse(GenerationSettings, {name: getattr(options, name) for name in names}, "")
        found = measure(options.model, options.data, out, settings, options.limit, options.replicas)
    except ValueError as error:
        print(f"avar difficulty: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        again = "what is written there is kept: mend that, and run the same command again"
        print(f"avar difficulty: {out}: {error.strerror}; {again}", file=sys.stderr)
        return 2
    print_report(found)
    print(f"{out}: {len(found)} rows written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
