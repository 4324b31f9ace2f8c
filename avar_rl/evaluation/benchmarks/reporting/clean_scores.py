"""Scores with and without the questions that stand in training data: OUT/contamination.json and .md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avar_rl.evaluation.benchmarks.asking.records import samples_path
from avar_rl.evaluation.benchmarks.benchmark import find
from avar_rl.evaluation.benchmarks.reporting.answered import read_questions, read_scored
from avar_rl.evaluation.benchmarks.reporting.contamination import KINDS, Search, check
from avar_rl.evaluation.benchmarks.reporting.markdown import cell
from avar_rl.evaluation.benchmarks.reporting.wording import LIMITED, between, give_or_take, percent
from avar_rl.evaluation.benchmarks.scoring.intervals import estimates
from avar_rl.evaluation.benchmarks.scoring.metrics import metrics
from avar_rl.evaluation.benchmarks.scoring.scored import ScoredSet, scored_set
from avar_rl.runtime import tables
from avar_rl.runtime.files import write_json, write_whole
from avar_rl.runtime.tables import markdown_table
from data_tools.formats.sample import read_samples

KIND_NAMES = {"image": "same image", "near_image": "near image", "text": "text"}
COLUMNS = ("official", "ours")
KEPT = {
    "all": (),
    "images not found": ("image", "near_image"),
    "nothing found": KINDS,
}  # name → kinds that are left out


def write_contamination(out: Path, results: Mapping[str, Any], files: Sequence[Path]) -> list[Path]:
    """Looks for the questions of an evaluation in training files, prints what was found, and writes it.

    Args:
        out: the folder of the evaluation; `results` is the content of its benchmarks.json.

    Raises:
        ValueError: a training file or files of the evaluation cannot be read.
    """
    asked = {name: list(model["benchmarks"]) for name, model in results["models"].items()}
    search, known = Search(), dict[str, list[str]]()
    for benchmark in dict.fromkeys(benchmark for of_model in asked.values() for benchmark in of_model):
        known[benchmark] = _add(search, out, benchmark, [name for name in asked if benchmark in asked[name]])
    check(search, files)
    found = {"files": list(map(str, files)), "rows": search.rows, "unreadable_images": search.unreadable}
    found["benchmarks"] = {
        benchmark: {
            "n": len(ids),
            "found": {
                kind: {id_: search.found[kind][id_] for id_ in ids if id_ in search.found[kind]} for kind in KINDS
            },
            "models": {
                name: _scores(out, name, benchmark, search)
                | {"limited": results["models"][name]["benchmarks"][benchmark]["limited"]}
                for name in asked
                if benchmark in asked[name]
            },
        }
        for benchmark, ids in known.items()
    }
    _print(found)
    write_json(out / "contamination.json", found)
    write_whole(out / "contamination.md", _document(found))
    return [out / "contamination.json", out / "contamination.md"]


def _add(search: Search, out: Path, benchmark: str, names: Sequence[str]) -> list[str]:
    """Adds the questions of a benchmark that any of the models was asked, each once; returns their ids."""
    ids: dict[str, None] = {}
    for name in names:
        for sample in read_samples(samples_path(out / name, benchmark)):
            if sample.id not in ids:
                search.add(sample)
                ids[sample.id] = None
    return list(ids)


def _scores(out: Path, name: str, benchmark: str, search: Search) -> dict[str, Any]:
    """Of each choice of KEPT: n, and column → the benchmark's first metric over its questions, None without any."""
    questions, lines = read_questions(out, name, benchmark), read_scored(out, name, benchmark)
    found: dict[str, Any] = {}
    for kept, kinds in KEPT.items():
        left_out = {id_ for kind in kinds for id_ in search.found[kind]}
        clean = [sample for sample in questions if sample.id not in left_out]
        if clean:
            results = scored_set(find(benchmark), clean, [line for line in lines if line["id"] not in left_out])
            found[kept] = {"n": len(clean)} | {column: _first(results, column) for column in COLUMNS}
        else:
            found[kept] = {"n": 0} | dict.fromkeys(COLUMNS)
    return found


def _first(results: ScoredSet, column: str) -> dict[str, Any]:
    name, figure = next(iter(metrics(results, column).items()))
    return {"metric": name} | estimates({name: figure}, results.clusters_n, results.seed)[name].as_json()


def _counts(found: Mapping[str, Any]) -> list[list[str]]:
    """Benchmark, its questions, how many were found by each kind, and at all."""
    rows = []
    for benchmark, one in found["benchmarks"].items():
        ids = {id_ for of_kind in one["found"].values() for id_ in of_kind}
        rows.append([benchmark, f"{one['n']:,}", *(str(len(one["found"][kind])) for kind in KINDS), str(len(ids))])
    return rows


def _kept_scores(found: Mapping[str, Any], show: Callable[[float, Any], str]) -> list[list[str]]:
    """Benchmark, model, column, and the score with its n for each choice of KEPT."""
    rows = []
    for benchmark, one in found["benchmarks"].items():
        for name, scores in one["models"].items():
            mark = f" {LIMITED}" if scores["limited"] else ""
            for column in COLUMNS:
                row = [benchmark, name, column]
                for kept in KEPT:
                    score = scores[kept][column]
                    n = f" (n = {scores[kept]['n']:,})"
                    row.append(show(score["value"], score["interval"]) + n + mark if score else "–")
                rows.append(row)
    return rows


_COUNTS_HEAD = ("benchmark", "n", *KIND_NAMES.values(), "any of these")
_SCORES_HEAD = ("benchmark", "model", "column", *KEPT)


def _print(found: Mapping[str, Any]) -> None:
    screen = tables.console()
    counts = tables.table(_COUNTS_HEAD, text=("benchmark",), title=f"questions in {found['rows']:,} training rows")
    for row in _counts(found):
        counts.add_row(*row)
    scores = tables.table(_SCORES_HEAD, text=("benchmark", "model"), title="scores of the questions that are left")
    for benchmark, name, *cells in _kept_scores(found, give_or_take):
        scores.add_row(benchmark, tables.cut(name), *cells)
    screen.print(counts, scores)
    if found["unreadable_images"]:
        screen.print(f"{found['unreadable_images']} images of the training rows cannot be read and were not compared")


def _document(found: Mapping[str, Any]) -> str:
    parts = [
        "# Questions that also stand in training data",
        f"Searched: {', '.join(cell(name) for name in found['files'])}, {found['rows']:,} rows, "
        f"{found['unreadable_images']} unreadable images.",
        markdown_table(_COUNTS_HEAD, _counts(found), text=1),
        "Scores in percent, of all questions, of those whose images were not found, and of those of which nothing was:",
        markdown_table(
            _SCORES_HEAD, _kept_scores(found, lambda value, interval: f"{percent(value)} {between(interval)}"), text=3
        ),
    ]
    for benchmark, one in found["benchmarks"].items():
        ids = dict.fromkeys(id_ for of_kind in one["found"].values() for id_ in of_kind)
        rows = [[cell(id_), *(cell(one["found"][kind].get(id_, "–")) for kind in KINDS)] for id_ in ids]
        if rows:
            parts += [f"## {find(benchmark).title}", markdown_table(["question", *KIND_NAMES.values()], rows, text=4)]
    return "\n\n".join(parts) + "\n"
