"""The figures of an evaluation as Markdown: scores beside published ones, groups, counts, lengths, settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from avar_rl.evaluation.benchmarks.benchmark import find
from avar_rl.evaluation.benchmarks.reporting.answered import read_answered
from avar_rl.evaluation.benchmarks.reporting.published import Published, published
from avar_rl.evaluation.benchmarks.reporting.wording import (
    Metric,
    between,
    counted,
    marked,
    metrics,
    of_group,
    percent,
    settings_of,
)
from avar_rl.evaluation.benchmarks.scoring.scored import COLUMNS
from avar_rl.runtime.tables import markdown_table, printable

SNIPPET = 100  # characters of a question
COUNTS = ("truncated", "unparsed", "undecided", "judge_failed")

Found = list[tuple[str, str, Mapping[str, Any]]]  # benchmark, model, its figures


def document(results: Mapping[str, Any]) -> str:
    """The whole report of the content of a `benchmarks.json`."""
    models = results["models"]
    names = dict.fromkeys(benchmark for model in models.values() for benchmark in model["benchmarks"])
    found = [
        (name, model, models[model]["benchmarks"][name])
        for name in names
        for model in models
        if name in models[model]["benchmarks"]
    ]
    title = f"# Benchmarks\n\n{cell(results.get('date', ''))}"
    if not found:
        return f"{title}\n\nNo benchmark was scored.\n"
    parts = [
        title,
        "Accuracy in percent with its 95 % interval. official: the benchmark's own rules, under which what does not "
        "parse is wrong; ours: the project's grader. LIMITED: of a part of the benchmark's questions, not comparable "
        "with any published number.",
        "## Scores\n\n" + _scores(found),
        *_section("Mean of the paper's seven", _means(models)),
        *_section("Metrics of the benchmarks' own", _own_metrics(found)),
        *_section("Drawn responses", _drawn(found)),
        "## Counts and lengths\n\n" + _counts(found),
        *_section("Attention", _attention(found)),
        *_section("By group", _groups(found)),
        "## Settings\n\n" + _settings(found, results.get("versions") or {}),
        "## Published numbers\n\n" + "\n".join(map(_source, _cited(found))),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, content: str) -> list[str]:
    return [f"## {title}\n\n{content}"] if content else []


def cell(value: Any) -> str:
    """Free text as a cell of a table: on one line, and no markup."""
    text = printable(str(value)).replace("\\", "\\\\")
    for mark in "|`*_[]<>":
        text = text.replace(mark, f"\\{mark}")
    return text


def _score(figures: Mapping[str, Any], metric: Metric | None) -> str:
    if metric is None:
        return "–"
    return marked(f"**{percent(metric.value)}** {between(metric.interval)}".strip(), figures)


def _columns(found: Found) -> list[str]:
    """The columns that any benchmark was scored in."""
    return [column for column in COLUMNS if any(figures["columns"].get(column) for _, _, figures in found)]


def _cited(found: Found) -> list[Published]:
    return [one for one in published() if any(one.text(benchmark) for benchmark, _, _ in found)]


def _scores(found: Found) -> str:
    columns, cited = _columns(found), _cited(found)
    head = ["benchmark", "model", *columns, "n", *(f"{one.name} ({one.model})" for one in cited)]
    rows = []
    for benchmark, model, figures in found:
        shown = [_score(figures, next(iter(metrics(figures, column)), None)) for column in columns]
        others = [one.text(benchmark) or "–" for one in cited]
        rows.append([find(benchmark).title, cell(model), *shown, marked(counted(figures), figures), *others])
    return markdown_table(head, rows) + "\n\n`?`: could not be traced to its source."


def _means(models: Mapping[str, Any]) -> str:
    """The unweighted means, of the models that were asked all seven."""
    rows = []
    for model, one in models.items():
        if mean := one.get("mean"):
            values = [mean.get(column) for column in COLUMNS]
            shown = [
                _score(mean, Metric("mean", value["value"], value["interval"]) if value else None) for value in values
            ]
            rows.append([cell(model), *shown])
    cited = [[f"{one.name} ({one.model})", f"{one.mean:.1f}", "–", "–"] for one in published() if one.mean is not None]
    return markdown_table(["model", *COLUMNS], rows + cited, text=1) if rows else ""


def _own_metrics(found: Found) -> str:
    columns, rows = _columns(found), []
    for benchmark, model, figures in found:
        by_column = {column: {metric.name: metric for metric in metrics(figures, column)} for column in columns}
        names = dict.fromkeys(name for own in by_column.values() for name in own)
        for name in names if len(names) > 1 else ():
            shown = [_score(figures, by_column[column].get(name)) for column in columns]
            rows.append([find(benchmark).title, cell(model), cell(name), *shown])
    return markdown_table(["benchmark", "model", "metric", *columns], rows, text=3) if rows else ""


def _drawn(found: Found) -> str:
    rows = []
    for benchmark, model, figures in found:
        for column in _columns(found):
            scores = figures["columns"].get(column) or {}
            of_k = dict((scores.get("pass_at_k") or {}).get("by_k", {}))
            drawn = {"avg@k": scores.get("avg_at_k"), **of_k, "majority": scores.get("majority")}
            for name, one in drawn.items():
                if one is not None:
                    score = _score(figures, Metric(name, one["value"], one["interval"]))
                    rows.append([find(benchmark).title, cell(model), column, name, score])
    return markdown_table(["benchmark", "model", "column", "of the samples", "score"], rows, text=4) if rows else ""


def _counts(found: Found) -> str:
    rows = []
    for benchmark, model, figures in found:
        counts, tokens = figures["counts"], figures["tokens"]
        shown = [marked(str(counts[key]), figures) if counts.get(key) is not None else "–" for key in COUNTS]
        lengths = [f"{tokens['mean']:.0f}", " / ".join(f"{q:.0f}" for q in tokens["quartiles"]), str(tokens["max"])]
        rows.append([find(benchmark).title, cell(model), *shown, *(marked(length, figures) for length in lengths)])
    names = [name.replace("_", " ") for name in COUNTS]
    return markdown_table(["benchmark", "model", *names, "tokens, mean", "quartiles", "longest"], rows)


def _attention(found: Found) -> str:
    rows = []
    for benchmark, model, figures in found:
        if vas := figures.get("vas"):
            shown = [marked(f"{vas[key]:.4g}", figures) for key in ("vas", "image_mass", "system_mass")]
            rows.append([find(benchmark).title, cell(model), *shown])
    return markdown_table(["benchmark", "model", "VAS", "image mass", "system mass"], rows) if rows else ""


def _groups(found: Found) -> str:
    parts = []
    for benchmark in dict.fromkeys(name for name, _, _ in found):
        of_models = {model: figures for name, model, figures in found if name == benchmark}
        keys = dict.fromkeys(key for figures in of_models.values() for key in figures["groups"])
        tables = [_group(key, of_models) for key in keys]
        if tables:
            parts.append("\n\n".join([f"### {find(benchmark).title}", *tables]))
    return "\n\n".join(parts)


def _group(key: str, of_models: Mapping[str, Mapping[str, Any]]) -> str:
    values = dict.fromkeys(value for figures in of_models.values() for value in figures["groups"].get(key, {}))
    columns, rows = ("official", "ours"), []
    for value in values:
        row = [cell(value)]
        for figures in of_models.values():
            group = figures["groups"].get(key, {}).get(value)
            row += [_score(figures, of_group(group, column) if group else None) for column in columns]
            row.append(marked(str(group["n"]), figures) if group else "–")
        rows.append(row)
    head = [cell(f"{model}: {name}") for model in of_models for name in (*columns, "n")]
    return markdown_table([cell(key.replace("_", " ")), *head], rows, text=1)


def _settings(found: Found, versions: Mapping[str, Any]) -> str:
    """What all results were made with, then what each has of its own."""
    of_each = {(benchmark, model): dict(settings_of(figures)) for benchmark, model, figures in found}
    first, *rest = of_each.values()
    shared = {key: value for key, value in first.items() if all(other.get(key) == value for other in rest)}
    rows = [["all", "", cell(key), cell(value)] for key, value in shared.items()]
    for (benchmark, model), settings in of_each.items():
        own = [(key, value) for key, value in settings.items() if key not in shared]
        rows += [[find(benchmark).title, cell(model), cell(key), cell(value)] for key, value in own]
    scored = ", ".join(f"{cell(name)} {cell(version)}" for name, version in versions.items())
    return (
        markdown_table(["benchmark", "model", "setting", "value"], rows, text=4) + f"\n\nScored with: {scored or '–'}."
    )


def _source(one: Published) -> str:
    notes = "".join(f"; {cell(note)}" for note in one.notes)
    mean = f"; its mean of the seven is {one.mean}" if one.mean is not None else ""
    return f"- {one.name} ({one.model}): {one.source}{mean}{notes}."


def disagreements(out: Path, name: str, benchmarks: Iterable[str]) -> str:
    """The greedy responses of a model that one column calls right and another wrong, with a link to its page.

    Raises:
        ValueError: files of the model are missing or damaged.
    """
    from urllib.parse import quote

    parts = [f"# {name}: where the columns disagree"]
    for benchmark in benchmarks:
        rows = []
        for question in read_answered(out, name, benchmark, with_images=False):
            answer = question.answers[0]
            if answer.disagree:
                link = f"[{cell(question.sample.id)}]({quote(name)}.html#id={quote(question.sample.id, safe='')})"
                says = [_says(answer.verdict(column), answer.scores.get(column)) for column in COLUMNS]
                begins = printable(question.sample.question.replace("<image>", ""))[:SNIPPET]
                rows.append([link, cell(begins), cell(", ".join(question.sample.golds)), *says])
        parts.append(f"## {find(benchmark).title}: {len(rows)}")
        if rows:
            parts.append(markdown_table(["question", "begins", "gold", *COLUMNS], rows, text=6))
    return "\n\n".join(parts) + "\n"


def _says(verdict: str, score: Mapping[str, Any] | None) -> str:
    answer = (score or {}).get("answer")
    return f"{verdict or '–'}: {cell(str(answer)[:SNIPPET])}" if answer is not None else verdict or "–"
