"""Visual-anchored data synthesis: `python -m data_tools.synthesis RECIPE.yaml --out DIR [key=value …]`.

Asks the recipe's teachers to describe, to reason and to anchor, filters what they say and writes DIR/train.parquet and
DIR/val.parquet (chat rows for the cold start), DIR/outcomes.jsonl (every row's outcome) and DIR/report.html. Each
finished call is kept in DIR/journal.sqlite: the same command goes on where it stopped, and pays for no call twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_tools.synthesis.inputs.recipe import Recipe

DONE, FAULT, STOPPED = 0, 2, 3
JOURNAL = "journal.sqlite"


def _run(arguments: argparse.Namespace) -> int:
    from data_tools.synthesis.calls.journal import Journal
    from data_tools.synthesis.inputs.recipe import load_recipe
    from data_tools.synthesis.inputs.selection import SelectedRows
    from data_tools.synthesis.inputs.tokens import token_counter
    from data_tools.synthesis.outcomes.export import Exporter
    from data_tools.synthesis.outcomes.report import show, tables, write_page
    from data_tools.synthesis.outcomes.stages import Tracer

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    if arguments.dry_run:
        return _dry_run(recipe)
    out, rows = arguments.out, SelectedRows(recipe)
    tracer = Tracer(recipe, token_counter(recipe.filters.tokenizer))
    stopped = None
    if arguments.ray:
        from data_tools.synthesis.running.ray_run import run_on_ray

        stopped = run_on_ray(recipe, rows, out / JOURNAL, arguments.ray)
    elif not arguments.export_only:
        from data_tools.synthesis.running.run import run_here

        stopped = run_here(recipe, rows, tracer, out / JOURNAL)
    journal = Journal(out / JOURNAL)
    try:
        tally = Exporter(recipe, journal, tracer).export(rows, out)
        found = tables(tally, journal.usage(), journal.requests(), recipe)
    finally:
        journal.close()
    show(found)
    write_page(out / "report.html", found, tally, stopped)
    if stopped:
        print(f"stopped: {stopped}. The same command goes on from here.", file=sys.stderr)
        return STOPPED
    print(f"{out}: {tally.responses} responses exported; report: {out / 'report.html'}")
    return DONE


def _dry_run(recipe: Recipe) -> int:
    """Prints the checked recipe: every value, and each stage's prompt."""
    from dataclasses import asdict

    import yaml

    from data_tools.synthesis.inputs.prompts import load_prompts

    prompts = load_prompts(recipe)
    print(yaml.safe_dump(asdict(recipe), sort_keys=False, allow_unicode=True), end="")
    for stage, prompt in prompts.items():
        print(f"# {stage}: prompt of {len(prompt.user) + len(prompt.system or '')} characters")
    return DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its status: 0 done, 2 a user's mistake, 3 stopped before the end, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="YAML file, see docs/data.md")
    parser.add_argument("overrides", nargs="*", help="for example budget.requests=1000 filters.min_anchors=3")
    parser.add_argument("--out", type=Path, help="folder of the journal, the data and the report")
    parser.add_argument("--dry-run", action="store_true", help="print the checked recipe and ask nothing")
    parser.add_argument(
        "--export-only", action="store_true", help="filter and export what the journal holds; ask nothing"
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="run the stages on Ray: an address, or `local`")
    arguments = parser.parse_intermixed_args(argv)
    if not arguments.out and not arguments.dry_run:
        parser.error("--out is needed: the folder of the journal, the data and the report")
    try:
        return _run(arguments)
    except (ValueError, OSError) as error:
        print(f"avar synthesize: {error}", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt:  # the second one, or one that hits the export
        print("interrupted; what is in the journal stays", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
