"""Models asked the questions of benchmarks: data → prompts → one engine for all → responses on the disk as they come.

What is there already, from the same model, data, prompts and settings, is not asked again, down to single responses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avar_rl.evaluation.benchmarks.asking.asked import AskedBenchmark, Preparation
from avar_rl.evaluation.benchmarks.asking.prompting import PromptSet
from avar_rl.evaluation.benchmarks.asking.records import ResponsesFile, origin_of_answers, vas_path
from avar_rl.evaluation.benchmarks.asking.telling import ResponseProgress, settings_line
from avar_rl.evaluation.benchmarks.benchmark import Benchmark
from avar_rl.runtime.files import write_json

if TYPE_CHECKING:
    from avar_rl.evaluation.answering.generate import AnsweringEngine, Drawn, GenerationSettings
    from avar_rl.evaluation.answering.replicas import ReplicaPool
    from avar_rl.intervention import Intervention

INTERVENED = ".intervened"  # ends the NAME of a model's second answers


@dataclass(frozen=True)
class Asking:
    """How models are asked: everything that is the same for all of them.

    prompts: of each benchmark, by its name. least, most: pixels of an image, None for the model's own limits.
    replicas: engines side by side. vas: whether visual attention is measured, `vas_batch` prompts at a time.
    """

    benchmarks: Sequence[Benchmark]
    prompts: Mapping[str, PromptSet]
    settings: GenerationSettings
    preparation: Preparation
    least: int | None = None
    most: int | None = None
    replicas: int = 1
    vas: bool = False
    vas_batch: int | None = None


@dataclass(frozen=True)
class _Variant:
    """A model under one setting, and the folder of its responses. `model` is a directory or hub name."""

    model: str
    processor: Any
    settings: GenerationSettings
    folder: Path
    asked: Sequence[AskedBenchmark]


def ask(name: str, model: str, asking: Asking, out: Path, intervention: Intervention | None = None) -> list[str]:
    """Draws the responses of a model that OUT/NAME lacks, and, with an intervention, those of OUT/NAME.intervened.

    Returns:
        The names under which responses are there now.

    Raises:
        ValueError: the model, its data or the prompts do not fit, or what is in the folder came about otherwise.
    """
    from avar_rl.attention.roles import Markup
    from avar_rl.evaluation.answering.questions import check_weights, load_processor

    check_weights(model)
    path = _with_pixels(model, asking, out / name)
    processor = load_processor(path)
    Markup.from_tokenizer(processor.tokenizer)  # refuses a model type without span support before minutes are spent
    variants = {name: asking.settings}
    if intervention is not None:
        variants[name + INTERVENED] = replace(asking.settings, intervention=intervention)
    for called, settings in variants.items():
        folder = out / called
        asked = [asking.preparation.asked(b, asking.prompts[b.name], folder, processor) for b in asking.benchmarks]
        variant = _Variant(path, processor, settings, folder, asked)
        _answer(variant, _origin(model, processor, asking, settings), asking.replicas)
        if asking.vas:
            _measure(variant, asking.vas_batch)
    return list(variants)


def _with_pixels(model: str, asking: Asking, folder: Path) -> str:
    """The model itself, or links to it with a processor of other limits of pixels."""
    if asking.least is None and asking.most is None:
        return model
    from avar_rl.base_model import make_base

    make_base(model, folder / "model", least=asking.least, most=asking.most)
    return str(folder / "model")


def _origin(model: str, processor: Any, asking: Asking, settings: GenerationSettings) -> dict[str, Any]:
    """What the origins of all benchmarks of a model have in common."""
    origin = origin_of_answers(model, processor, settings, asking.replicas)
    origin["generation"]["system_prompt"] = asking.preparation.system
    return origin | {"limit": asking.preparation.limit}


def _origin_of(one: AskedBenchmark) -> dict[str, Any]:
    return {
        "data": one.data,
        "prompts": {"name": one.prompts.name, "hash": one.prompts.hash},
        "n": one.n,
        "official_n": one.benchmark.n,
        "longest_prompt": asdict(one.limits),
    }


def _answer(variant: _Variant, origin: Mapping[str, Any], replicas: int) -> None:
    """Draws all responses that are missing, of all benchmarks by one engine, and keeps each as soon as it is there."""
    name, samples, asked = variant.folder.name, variant.settings.samples, variant.asked
    with ExitStack() as stack:
        files: dict[str, ResponsesFile] = {}
        origins = {one.benchmark.name: {**origin, **_origin_of(one)} for one in asked}
        for one, about in origins.items():
            files[one] = stack.enter_context(ResponsesFile(variant.folder, one, about))
        total = sum(one.n for one in asked) * (1 + samples)
        there = sum(len(file.done) for file in files.values())
        print(settings_line(name, origins), f"{name}: {_described(asked, total, there)}", sep="\n", flush=True)
        if there >= total:
            return
        requests = chain.from_iterable(one.requests(files[one.benchmark.name].done, samples) for one in asked)
        engine = stack.enter_context(_engine(variant, replicas))
        progress = stack.enter_context(ResponseProgress(name, total, there))
        for finished in engine.answers(requests):
            for benchmark, drawn in _by_benchmark(finished):
                files[benchmark].append(drawn)
            progress.add(len(finished), sum(len(response.ids) for _, response in finished))


def _by_benchmark(finished: Sequence[Drawn]) -> Iterator[tuple[str, list[Drawn]]]:
    def key(drawn: Drawn) -> str:
        return str(drawn[0].key)

    for benchmark, drawn in groupby(sorted(finished, key=key), key):
        yield benchmark, list(drawn)


def _described(asked: Sequence[AskedBenchmark], total: int, there: int) -> str:
    parts = [
        f"{one.benchmark.name} {one.n:,}{'' if one.n == one.benchmark.n else f' of {one.benchmark.n:,}'}"
        for one in asked
    ]
    done = "all there" if there >= total else f"{there:,} there" if there else "none there yet"
    return f"{total:,} responses, {done} ({', '.join(parts)})"


def _engine(variant: _Variant, replicas: int) -> AnsweringEngine | ReplicaPool:
    from avar_rl.evaluation.answering.questions import PromptLimits
    from avar_rl.evaluation.answering.replicas import open_engine

    limits = [one.limits for one in variant.asked]
    most = PromptLimits(max(one.tokens for one in limits), max(one.images for one in limits))
    return open_engine(variant.model, most, variant.processor, variant.settings, replicas)


def _measure(variant: _Variant, batch: int | None) -> None:
    """Writes the benchmarks' BENCHMARK.vas.json that are missing: means of the prompts' visual attention, or null."""
    from avar_rl.evaluation.answering.visual_attention import measure_sets

    paths = {one.benchmark.name: vas_path(variant.folder, one.benchmark.name) for one in variant.asked}
    sets = {one.benchmark.name: one.questions for one in variant.asked if not paths[one.benchmark.name].is_file()}
    how = {"batch_size": batch, "intervention": variant.settings.intervention}
    for benchmark, vas in measure_sets(variant.model, sets, variant.processor, **how):
        write_json(paths[benchmark], None if vas is None else asdict(vas))
