"""The page of a study: tables and plots, made of its result files alone, the same ones each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avar_rl.runtime.files import write_whole
from avar_rl.runtime.plots import described
from avar_rl.study import analysis, plots, tables
from avar_rl.study.results import read_result
from avar_rl.study.study_file import Study

PAGE = "report.md"
_LEGEND = (
    "Differences are paired by seed and question, shares in points; bold: primary. Two 95 % intervals: seeds and "
    "questions drawn anew (bootstrap), and Student's over the seeds' differences. Above or below 0: both are. Of a "
    "claim that the first is above the second: reproduced or contradicted where both are above or below 0, not "
    "reproduced where the one over seeds excludes the gain that would matter. Not corrected for the number of "
    "comparisons."
)


def read_results(study: Study) -> dict[tuple[str, int], dict[str, Any]]:
    """(arm, seed) -> result, of the runs that have one. ValueError: none has, or one is not of these settings."""
    found = {}
    for arm in study.arms:
        for seed in study.seeds_of(arm):
            result = read_result(study, arm, seed)
            if result is not None:
                found[arm, seed] = result
    if not found:
        raise ValueError(f"{study.results} holds no result of this study yet: run it first")
    return found


def write_report(study: Study) -> Path:
    """Writes the page, its plots and the study's tables in other pages; returns the page.

    Raises:
        ValueError: as of `read_results` and of `analysis.effect`; or a page has no place for its table.
    """
    results, folder = read_results(study), Path(study.results)
    effects = analysis.effects(study, results)
    pages = _pages(study, results, effects)
    for plot in plots.plots_of(study, results, effects):
        plot.write(folder)
    for path, text in pages.items():
        write_whole(path, text)
    return folder / PAGE


def differences(study: Study) -> list[Path]:
    """Files of the report that are missing, or are not what the results give. Plots are compared by what they show:
    the same figures may be drawn in other pixels by another version of matplotlib. ValueError: as of `write_report`."""
    results, folder = read_results(study), Path(study.results)
    effects = analysis.effects(study, results)
    pages = _pages(study, results, effects)
    different = [path for path, text in pages.items() if not (path.is_file() and path.read_text("utf-8") == text)]
    drawn = plots.plots_of(study, results, effects)
    return different + [folder / plot.name for plot in drawn if described(folder / plot.name) != plot.digest]


def _pages(study: Study, results: analysis.Results, effects: analysis.Effects) -> dict[Path, str]:
    """The study's page, and others with its tables in them: what each has to say."""
    pages = {Path(study.results) / PAGE: _page(study, results, effects)}
    for name, excerpt in study.excerpts.items():
        path = Path(excerpt.page)
        text = pages.get(path) or (path.read_text(encoding="utf-8") if path.is_file() else "")
        begin, end = f"<!-- study {study.name}: {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"excerpts.{name}: {path} has no lines {begin.strip()} and {end}, between which it stands")
        table = tables.excerpt_table(study, excerpt, results, effects)
        pages[path] = f"{before}{begin}\n{table.strip()}\n\n{end}{after}"
    return pages


def _page(study: Study, results: analysis.Results, effects: analysis.Effects) -> str:
    parts = [
        f"# Study {study.name}",
        study.about.strip() or f"A study of `{study.recipe}`.",
        _runs(study, results),
        "## Models\n",
        tables.models_table(study, results),
        "![measures of every arm, seed by seed](arms.png)",
    ]
    if study.comparisons:
        parts += ["## Comparisons\n", _LEGEND, tables.comparisons_table(study, effects)]
        parts += ["![differences with their intervals](effects.png)"]
    if study.correlations:
        parts += ["## Correlations over checkpoints\n", "95 % intervals: seeds drawn anew."]
        parts += [tables.correlations_table(study, results)]
        parts += [f"![{p.x} against {p.y}]({plots.scatter_name(p)})" for p in study.correlations]
    parts += ["## What the arms are\n", tables.arms_table(study)]
    parts += ["## What stages took\n", tables.stages_table(results)]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _runs(study: Study, results: analysis.Results) -> str:
    wanted = [(arm, seed) for arm in study.arms for seed in study.seeds_of(arm)]
    missing = [f"{arm} with seed {seed}" for arm, seed in wanted if (arm, seed) not in results]
    once = {stage["digest"]: stage for result in results.values() for stage in result["stages"]}
    wall, processor = (
        sum(stage[key] or 0 for stage in once.values()) / 3600 for key in ("seconds", "processor_seconds")
    )
    commits = sorted({str(result["commit"]) for result in results.values()})
    lines = [f"{len(results)} of {len(wanted)} runs of `{study.recipe}`, at commit {', '.join(commits)}."]
    lines.append(f"{len(once)} stages, {wall:.1f} hours one after the other, {processor:.1f} hours of processors.")
    if missing:
        lines.append(f"**Missing**: {', '.join(missing)}.")
    return " ".join(lines)
