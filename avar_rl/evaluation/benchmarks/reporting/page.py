"""One HTML page for each model: its scores, and a browser of every question with image, responses and verdicts.

OUT/NAME.html holds the figures and a short line for each question. The texts are in OUT/NAME/page/*.js, a few dozen
questions each, the images beside them as thumbnails: the page loads those that a reader opens, so that it stays quick
with thousands of questions of long responses. Script and style are in the page; nothing is fetched from elsewhere.
Text of models and data enters the document as text nodes only.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shlex
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from avar_rl.evaluation.benchmarks.asking.prompting import PromptSet
from avar_rl.evaluation.benchmarks.benchmark import find
from avar_rl.evaluation.benchmarks.reporting.answered import (
    Answer,
    AnsweredQuestion,
    asked_prompts,
    figures_of,
    overlay_path,
    read_answered,
)
from avar_rl.evaluation.benchmarks.reporting.published import published
from avar_rl.evaluation.benchmarks.reporting.wording import (
    Metric,
    between,
    counted,
    metrics,
    of_group,
    percent,
    settings_of,
)
from avar_rl.evaluation.benchmarks.scoring.scored import COLUMNS
from avar_rl.runtime.files import write_whole
from avar_rl.runtime.images import open_image, rgb

CHUNK = 25  # questions in a file of texts
THUMBNAIL = 448  # longest side in pixels
SNIPPET = 140  # characters of a question in the list
CODES = {"right": "r", "wrong": "w", "unparsed": "p", "undecided": "u", "failed": "f", "": "-"}


def write_page(out: Path, name: str, results: Mapping[str, Any], workers: int = 2) -> Path:
    """Writes the page of one model and what it loads; returns the page.

    Args:
        out: the folder of an evaluation; `results` is the content of its benchmarks.json.
        workers: threads that make thumbnails; one that is there already is kept.

    Raises:
        ValueError: files of the model are missing or damaged, or an image cannot be read.
    """
    from tqdm import tqdm

    figures = figures_of(results, name, out)
    folder = out / name / "page"
    questions: list[list[Any]] = []
    with ThreadPoolExecutor(workers) as pool:
        for place, benchmark in enumerate(figures):
            prompts = asked_prompts(benchmark, figures[benchmark]["origin"])
            found = read_answered(out, name, benchmark)
            bar = tqdm(found, desc=f"page of {name}, {benchmark}", unit="question", disable=None)
            for number, chunk in enumerate(_chunks(bar)):
                images = list(
                    dict.fromkeys(image for one in chunk for image in one.sample.images)
                )  # each in one thread
                names = dict(zip(images, pool.map(thumbnail, images, itertools.repeat(folder)), strict=True))
                texts = [_texts(one, prompts, names, out, name) for one in chunk]
                write_whole(folder / f"{benchmark}.{number}.js", f"loaded({_json([benchmark, number, texts])});\n")
                questions += [_line(one, place, find(benchmark).groups) for one in chunk]
    cited = [one.name for one in published() if any(map(one.text, figures))]
    head = {
        "model": name,
        "date": results.get("date", ""),
        "folder": f"{quote(name)}/page",
        "chunk": CHUNK,
        "cited": cited,
    }
    shown = [_benchmark(benchmark, found) for benchmark, found in figures.items()]
    path = out / f"{name}.html"
    write_whole(path, _render(name, head | {"benchmarks": shown, "questions": questions}))
    return path


def _chunks(found: Iterable[AnsweredQuestion]) -> Iterable[list[AnsweredQuestion]]:
    held: list[AnsweredQuestion] = []
    for one in found:
        held.append(one)
        if len(held) == CHUNK:
            yield held
            held = []
    if held:
        yield held


def thumbnail(data: bytes | str, folder: Path) -> str:
    """Writes a small WebP of an encoded image to `folder`, once for each content; returns its name.

    Raises:
        ValueError: the image cannot be read.
    """
    name = f"{hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()[:20]}.webp"
    if not (folder / name).is_file():
        image = open_image(data, where="an image of a question")
        image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))  # a large JPEG need not be decoded in full
        image = rgb(image, "an image of a question")
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        content = io.BytesIO()
        image.save(content, "WEBP", quality=80, method=2)
        write_whole(folder / name, content.getvalue())
    return name


def _line(one: AnsweredQuestion, benchmark: int, groups: Iterable[str]) -> list[Any]:
    """What the list and the filters need of a question: benchmark, id, beginning, verdicts, tokens, cut off, groups."""
    first = one.answers[0]
    begins = " ".join(one.sample.question.replace("<image>", " ").split())[:SNIPPET]
    verdicts = "".join(CODES[first.verdict(column)] for column in COLUMNS)
    values = [_value(one.sample.extra.get(key)) for key in groups]
    return [benchmark, one.sample.id, begins, verdicts, first.tokens, int(first.truncated), int(first.disagree), values]


def _value(value: Any) -> str:
    return "" if value is None else str(value)


def _texts(
    one: AnsweredQuestion, prompts: PromptSet | None, names: Mapping[bytes | str, str], out: Path, name: str
) -> dict[str, Any]:
    sample = one.sample
    overlay = overlay_path(name, sample.id)
    return {
        "prompt": prompts.conversation(sample).turns[-1]["content"] if prompts else sample.text,
        "golds": list(sample.golds),
        "images": [names[image] for image in sample.images],
        "overlay": quote(overlay),
        "hint": shlex.join(["avar", "report", str(out), "--models", name, "--overlay", sample.id]),
        "answers": [_answer(answer) for answer in one.answers],
    }


def _answer(answer: Answer) -> dict[str, Any]:
    columns = {column: [answer.verdict(column), score.get("answer")] for column, score in answer.scores.items()}
    kept = {"drawn": answer.drawn, "text": answer.response, "tokens": answer.tokens, "truncated": answer.truncated}
    return kept | {"columns": columns, "disagree": answer.disagree}


def _benchmark(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a benchmark above its questions; of its metrics, the first is its score."""
    benchmark = find(name)
    own = {column: found for column in COLUMNS if (found := metrics(figures, column))}
    return {
        "name": name,
        "title": benchmark.title,
        "n": counted(figures),
        "limited": figures["limited"],
        "metrics": {column: [[one.name, *_shown(one)] for one in found] for column, found in own.items()},
        "published": [[one.name, one.text(name), one.model] for one in published() if one.text(name)],
        "groups": {key: _group(figures["groups"].get(key, {})) for key in benchmark.groups},
        "keys": list(benchmark.groups),
        "counts": figures["counts"],
        "tokens": figures["tokens"],
        "settings": settings_of(figures),
    }


def _group(values: Mapping[str, Any]) -> list[list[Any]]:
    """Value, n, and the accuracy by both rules."""
    return [
        [value, found["n"], *(" ".join(_shown(of_group(found, column))) for column in COLUMNS[:2])]
        for value, found in values.items()
    ]


def _shown(metric: Metric | None) -> tuple[str, str]:
    return (percent(metric.value), between(metric.interval)) if metric else ("–", "")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _render(name: str, data: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("avar_rl.evaluation.benchmarks.reporting", "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    return environment.get_template("page.html.jinja").render(title=name, data=data)
