"""A benchmark made ready to be asked: its questions in OUT/NAME/BENCHMARK.samples.parquet, and how long they are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avar_rl.evaluation.answering.generate import AnswerRequest
from avar_rl.evaluation.answering.questions import PromptLimits, Question
from avar_rl.evaluation.benchmarks.asking.prompting import PromptSet
from avar_rl.evaluation.benchmarks.asking.records import origin_path, read_origin, samples_path
from avar_rl.evaluation.benchmarks.benchmark import Benchmark, copies_in, find, part_places, read
from avar_rl.runtime.files import file_stamps, replacing
from data_tools.formats.sample import DataSample, SampleWriter, read_samples


@dataclass(frozen=True)
class AskedBenchmark:
    """A benchmark's questions as a model is asked them. `data` says where they are from, `limits` how long they are."""

    benchmark: Benchmark
    prompts: PromptSet
    system: str | None
    path: Path
    n: int
    data: Mapping[str, Any]
    limits: PromptLimits

    def questions(self) -> Iterator[Question]:
        """The questions in their order, a small batch in memory at a time."""
        for sample in read_samples(self.path):
            asked = self.prompts.conversation(sample, self.system)
            yield Question(asked, self.benchmark.name, sample.gold, sample.options, sample.other_golds)

    def requests(self, done: Collection[tuple[str, int | None]], samples: int) -> Iterator[AnswerRequest]:
        """The responses that are still to be drawn beside the (id, sample) in `done`, question by question."""
        for question in self.questions():
            for sample in (None, *range(samples)):
                if (question.conversation.id, sample) not in done:
                    yield AnswerRequest(self.benchmark.name, question, sample)


class Preparation:
    """Prepares benchmarks for model after model; each is read from its source once.

    limit: the first so many questions of each part, None for all. system: the system prompt, None for the template's.
    """

    def __init__(self, places: Mapping[str, Mapping[str, str]], limit: int | None, system: str | None):
        self._places, self.limit, self.system = places, limit, system
        self._written: dict[str, tuple[Path, str]] = {}  # by benchmark: a file of its questions, and their hash

    def asked(self, benchmark: Benchmark, prompts: PromptSet, folder: Path, processor: Any) -> AskedBenchmark:
        """Writes the questions of a benchmark to `folder`, unless responses to them are there already.

        Raises:
            ValueError: its data cannot be read, or the prompts do not fit it.
        """
        path = samples_path(folder, benchmark.name)
        places = {part.name: place for part, place in part_places(benchmark, self._places[benchmark.name])}
        data: dict[str, Any] = {"places": places, "files": {place: file_stamps(place) for place in places.values()}}
        origin = origin_path(folder, benchmark.name)
        if origin.is_file() and path.is_file():  # whether it is the same origin is asked when the responses are opened
            there = read_origin(folder, benchmark.name)
            data["hash"], n, limits = there["data"]["hash"], there["n"], PromptLimits(**there["longest_prompt"])
            self._written.setdefault(benchmark.name, (path, data["hash"]))
        else:
            samples, data["hash"] = self._questions(benchmark, places, path)
            prompts.check(samples)
            n, limits = len(samples), _limits(samples, prompts, self.system, processor)
        return AskedBenchmark(benchmark, prompts, self.system, path, n, data, limits)

    def _questions(self, benchmark: Benchmark, places: Mapping[str, str], path: Path) -> tuple[list[DataSample], str]:
        if benchmark.name in self._written:
            earlier, digest = self._written[benchmark.name]
            if earlier != path:
                _link(earlier, path)
            return list(read_samples(path)), digest
        samples = read(benchmark, places, self.limit)
        with SampleWriter(path) as writer:
            for sample in samples:
                writer.add(sample)
        self._written[benchmark.name] = path, content_hash(samples)
        return samples, self._written[benchmark.name][1]


def data_places(arguments: Sequence[str], benchmarks: Sequence[Benchmark]) -> dict[str, dict[str, str]]:
    """Benchmark → where its parts are, as `read` takes it, from `NAME=PLACE`, `NAME/PART=PLACE` or a folder of copies.

    Raises:
        ValueError: an unknown benchmark, a folder that is none, or one that lacks a benchmark.
    """
    named: dict[str, dict[str, str]] = {}
    folders = []
    for argument in arguments:
        name, separator, place = argument.partition("=")
        if separator:
            benchmark, _, part = name.partition("/")
            named.setdefault(find(benchmark).name, {})[part] = place
        elif Path(argument).is_dir():
            folders.append(argument)
        else:
            raise ValueError(
                f"--benchmark-data {argument}: no folder; files and hub names are given as NAME={argument}"
            )
    if len(folders) > 1:
        raise ValueError(f"--benchmark-data names {len(folders)} folders; give the others as NAME=PLACE")
    return {one.name: named.get(one.name) or (copies_in(folders[0], one) if folders else {}) for one in benchmarks}


def content_hash(samples: Sequence[DataSample]) -> str:
    """A short hash of what is asked and of its answers, images included."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(json.dumps([sample.id, sample.question, sample.options, sample.golds]).encode())
        for image in sample.read_images(Path()):
            digest.update(hashlib.sha256(image).digest())
    return digest.hexdigest()[:12]


def _limits(samples: Sequence[DataSample], prompts: PromptSet, system: str | None, processor: Any) -> PromptLimits:
    from tqdm import tqdm

    tokens = images = 0
    for sample in tqdm(samples, desc="measuring prompts", unit="question", disable=None):
        asked = prompts.conversation(sample, system)
        try:
            tokens = max(tokens, asked.tokens(processor))
        except ValueError as error:
            raise ValueError(f"{sample.id}: {error}") from error
        images = max(images, len(asked.images))
    return PromptLimits(tokens, images)


def _link(earlier: Path, path: Path) -> None:
    """`path` as another name of the file `earlier`, or a copy where the file system has no such names."""
    with replacing(path) as partial:
        try:
            os.link(earlier, partial)
        except OSError:
            shutil.copyfile(earlier, partial)
