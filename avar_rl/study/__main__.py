"""Run a study, or report one: `avar study FILE [--plan] [--jobs N]`, `avar study report FILE [--check]`.

A study is a YAML file of arms x seeds over a recipe (recipes/studies/, docs/study.md). Stages that runs share are run
once. The same command goes on where it was stopped, however that was; every finished run leaves one small JSON
file, and `report` makes tables, plots and a page of these. With RAY_ADDRESS runs are tasks of that cluster.

Exit status: 0 all is done; 1 something failed, or --check found a difference; 2 a mistake; 75 a run lost a member,
and 130 a signal: the same command goes on.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MISTAKE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs or reports the study that `argv` names; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    report = words[:1] == ["report"]
    try:
        return _report(words[1:]) if report else _study(words)
    except (OSError, ValueError) as error:
        print(f"avar study{' report' if report else ''}: {error}", file=sys.stderr)
        return MISTAKE


def _study(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="avar study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the study's YAML; or `report`, see avar study report --help")
    parser.add_argument("--plan", action="store_true", help="print arms, stages to run and hours; check; run nothing")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side here (default 1)")
    parser.add_argument("--arms", metavar="NAME,…", help="run no others in this sitting (default: all)")
    parser.add_argument("--seeds", metavar="N,…", help="run no others in this sitting (default: all)")
    options = parser.parse_args(words)
    from avar_rl.study.listing import print_plan
    from avar_rl.study.planning import arm_runs, check_arms, jobs_of
    from avar_rl.study.running import jobs_to_run, the_only_one
    from avar_rl.study.study_file import load_study

    if options.jobs < 1:
        raise ValueError(f"--jobs {options.jobs}: at least 1")
    study = load_study(options.file)
    runs = arm_runs(study)
    jobs = jobs_of(study, runs)
    arms = _chosen("arms", options.arms, list(study.arms))
    seeds = _chosen("seeds", options.seeds, sorted({run.seed for run in runs}))
    to_run = jobs_to_run(study, jobs, arms, seeds)
    print_plan(study, runs, jobs, to_run)
    waiting = {job.run.arm for job in to_run if not job.shared}
    faults = check_arms(study, [run for run in runs if run.arm in waiting])
    for fault in faults:
        print(f"avar study: {fault}", file=sys.stderr)
    if faults or options.plan or not to_run:
        return MISTAKE if faults else 0
    with the_only_one(study):
        return _run(study, to_run, options.jobs)


def _chosen(option: str, named: str | None, there: list[Any]) -> list[Any]:
    """What a sitting is restricted to, of what the study has. ValueError: the study has no such arm or seed."""
    if named is None:
        return there
    found = {str(one): one for one in there}
    if unknown := [name for name in named.split(",") if name not in found]:
        raise ValueError(f"--{option}: the study has no {unknown[0]!r}; it has {', '.join(found)}")
    return [found[name] for name in named.split(",")]


def _run(study, to_run, room: int) -> int:
    from avar_rl.study.launching import LocalLauncher, RayLauncher
    from avar_rl.study.running import StudyRun
    from avar_rl.study.telling import Telling

    launcher = RayLauncher(study.resources) if os.environ.get("RAY_ADDRESS") else LocalLauncher(room)
    try:
        with Telling(len(to_run)) as telling:
            status = StudyRun(study, to_run, launcher, telling).run()
    finally:
        launcher.close()
    if status == 0:
        print(f"results: {study.results}; `avar study report` makes tables and plots of them")
    else:
        print("the same command goes on", file=sys.stderr)
    return status


def _report(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="avar study report", description="Tables, plots and one page from a study's results."
    )
    parser.add_argument("file", type=Path, help="the study's YAML")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where what is there differs")
    options = parser.parse_args(words)
    from avar_rl.study.report import differences, write_report
    from avar_rl.study.study_file import load_study

    study = load_study(options.file)
    if not options.check:
        print(write_report(study))
        return 0
    different = differences(study)
    for path in different:
        print(f"avar study report: {path} is not what the results give; run `avar study report {options.file}`")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
