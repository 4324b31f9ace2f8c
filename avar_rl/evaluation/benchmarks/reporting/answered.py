"""What an evaluation left in its folder, read back: figures, questions, and every response with its verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from avar_rl.evaluation.benchmarks.asking.prompting import PromptSet, load_prompts
from avar_rl.evaluation.benchmarks.asking.records import read_records, samples_path, scored_path
from avar_rl.evaluation.benchmarks.benchmark import find
from avar_rl.evaluation.benchmarks.scoring.both_columns import turn_of
from avar_rl.evaluation.benchmarks.scoring.score import RESULTS
from avar_rl.evaluation.benchmarks.scoring.scored import COLUMNS
from data_tools.formats.sample import DataSample, read_samples


@dataclass(frozen=True)
class Answer:
    """A response to a question: `drawn` is None for the greedy one, else the number of the sample.

    `scores`: column → what it says, {answer, right, …}; without those that the response was not scored in.
    """

    drawn: int | None
    response: str
    tokens: int
    truncated: bool
    scores: Mapping[str, Mapping[str, Any]]

    def verdict(self, column: str) -> str:
        """What a column says, in a word: right, wrong, unparsed (which counts as wrong), undecided, failed (of a
        judge), or "" where it was not asked."""
        score = self.scores.get(column)
        if score is None:
            return ""
        if column == "official" and not score["parsed"]:
            return "unparsed"
        if score.get("failed"):
            return "failed"
        return {True: "right", False: "wrong", None: "undecided"}[score["right"]]

    @property
    def disagree(self) -> bool:
        """Whether one column calls it right and another wrong."""
        found = {self.verdict(column) for column in COLUMNS}
        return "right" in found and bool(found & {"wrong", "unparsed"})


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question and its answers, the greedy one first."""

    sample: DataSample
    answers: tuple[Answer, ...]


def read_results(path: Path) -> dict[str, Any]:
    """The content of a `benchmarks.json`, or of the one in the folder `path`.

    Raises:
        ValueError: there is none, or it is no such file.
    """
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file}: no such file; `avar evaluate` writes one, and `avar score` from stored responses")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("models"), dict) or not found["models"]:
        raise ValueError(f"{file}: not figures of benchmarks, it has no `models`")
    return found


def figures_of(results: Mapping[str, Any], name: str, where: Path) -> dict[str, Any]:
    """Benchmark → its figures, of one model of `results`. ValueError: no such model; names those there are."""
    if name not in results["models"]:
        raise ValueError(f"{where}: no model {name!r}; it has {', '.join(results['models'])}")
    return results["models"][name]["benchmarks"]


def overlay_path(name: str, id_: str) -> str:
    """Where the attention overlay of a model's question lies, relative to the folder of the evaluation."""
    return f"{name}/attention/{quote(id_, safe='')}.png"


def asked_prompts(benchmark: str, origin: Mapping[str, Any]) -> PromptSet | None:
    """The prompts that an origin names, None where they are another file's, or were changed since."""
    try:
        prompts = load_prompts(origin["prompts"]["name"], find(benchmark))
    except ValueError:
        return None
    return prompts if prompts.hash == origin["prompts"]["hash"] else None


def read_answered(out: Path, name: str, benchmark: str, *, with_images: bool = True) -> Iterator[AnsweredQuestion]:
    """The questions of a benchmark in their order, with a model's responses; images a small batch in memory at a time,
    or none, which is much faster.

    Raises:
        ValueError: a file is missing or damaged, or they do not belong together.
    """
    answers = read_answers(out, name, benchmark)
    path = samples_path(out / name, benchmark)
    for sample in read_samples(path, with_images=with_images):
        if sample.id not in answers:
            raise ValueError(f"{path}: no response to question {sample.id}; go on with `avar evaluate`")
        yield AnsweredQuestion(sample, answers.pop(sample.id))
    if answers:
        raise ValueError(f"{path}: {len(answers)} responses are to other questions, such as {next(iter(answers))}")


def read_questions(out: Path, name: str, benchmark: str) -> list[DataSample]:
    """The questions of a benchmark in their order, without their images. ValueError: the file is missing or damaged."""
    return list(read_samples(samples_path(out / name, benchmark), with_images=False))


def read_scored(out: Path, name: str, benchmark: str) -> list[dict[str, Any]]:
    """The scored lines of a model's responses, as `scoring` makes them. ValueError: the file is missing or damaged."""
    return json_lines(scored_path(out / name, benchmark), ("id", "sample", "official", "ours", "judge"))


def read_answers(out: Path, name: str, benchmark: str) -> dict[str, tuple[Answer, ...]]:
    """Question's id → a model's responses to it with their verdicts, the greedy one first, then in the order drawn.

    Raises:
        ValueError: a file is missing or damaged, or a response has no score.
    """
    scores = {(line["id"], line["sample"]): line for line in read_scored(out, name, benchmark)}
    found: dict[str, list[Answer]] = {}
    for line in read_records(out / name, benchmark):
        key = line["id"], line["sample"]
        if key not in scores:
            raise ValueError(f"{out / name}: no score of {key[0]}; `avar score {out}` scores what is stored")
        columns = {column: scores[key][column] for column in COLUMNS if scores[key].get(column) is not None}
        text = turn_of(line).encode("utf-8", "replace").decode()  # JSON can hold half a character
        found.setdefault(key[0], []).append(Answer(key[1], text, line["tokens"], line["truncated"], columns))
    return {id_: tuple(sorted(answers, key=_order)) for id_, answers in found.items()}


def _order(answer: Answer) -> int:
    return -1 if answer.drawn is None else answer.drawn


def json_lines(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line, each with `keys`. ValueError: no such file, another line."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    found = []
    with path.open("rb") as lines:  # str.splitlines would break at U+2028, too
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(value, dict) or not set(keys) <= value.keys():
                raise ValueError(f"{path}, line {number}: not an object with {', '.join(keys)}")
            found.append(value)
    return found
