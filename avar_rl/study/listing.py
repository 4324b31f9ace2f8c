"""What `avar study FILE --plan` prints: arms, what is to be run, and how long that may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from avar_rl.evaluation.summary import read_seconds
from avar_rl.runtime import tables
from avar_rl.study.planning import ArmRun, Job
from avar_rl.study.results import is_current
from avar_rl.study.study_file import Study


def known_seconds(study: Study, jobs: Sequence[Job]) -> dict[str, float]:
    """Stage → mean seconds: of the study's runs so far, else what its file says."""
    found: dict[str, list[float]] = {}
    for job in jobs:
        done = read_seconds(job.out / "stages")
        for stage in job.own:
            if stage.name in done:
                found.setdefault(stage.name, []).append(done[stage.name])
    return {**study.seconds, **{name: fmean(values) for name, values in found.items()}}


def _left(job: Job) -> list[str]:
    """Its own stages that are not done."""
    return [stage.name for stage in job.own if not (job.out / "stages" / stage.name).is_file()]


def print_plan(study: Study, runs: Sequence[ArmRun], jobs: Sequence[Job], to_run: Sequence[Job]) -> None:
    """Prints the arms, the jobs that are to be run in their order, and the estimate."""
    screen, known = tables.console(), known_seconds(study, jobs)
    arms = tables.table(("arm", "seeds", "with results", "about"), text=("arm", "about"), title=f"study {study.name}")
    for name, arm in study.arms.items():
        of_arm = [run for run in runs if run.arm == name]
        seeds, done = " ".join(str(run.seed) for run in of_arm), sum(is_current(study, run) for run in of_arm)
        arms.add_row(name, seeds, f"{done} of {len(of_arm)}", tables.cut(arm.about or _differences(study, name)))
    screen.print(arms)
    if not to_run:
        screen.print("all runs have their results")
        return
    listed = tables.table(("to be run", "stages", "minutes"), text=("to be run", "stages"))
    for job in to_run:
        left = _left(job)
        listed.add_row(tables.cut(job.name), tables.cut(" ".join(left)), _minutes(left, known))
    screen.print(listed)
    screen.print(_estimate([name for job in to_run for name in _left(job)], known), soft_wrap=True)


def _differences(study: Study, arm: str) -> str:
    one = study.arms[arm]
    return " ".join([*(f"{name}={value}" for name, value in one.knobs.items()), *one.overrides])


def _minutes(stages: Sequence[str], known: Mapping[str, float]) -> str:
    there = [known[name] for name in stages if name in known]
    return f"{sum(there) / 60:.1f}{'' if len(there) == len(stages) else ' + ?'}"


def _estimate(stages: Sequence[str], known: Mapping[str, float]) -> str:
    hours = sum(known.get(name, 0.0) for name in stages) / 3600
    unknown = sorted({name for name in stages if name not in known})
    more = f", without {', '.join(unknown)}, of which no run and no `seconds` say anything yet" if unknown else ""
    return f"{len(stages)} stages, one after the other {hours:.1f} hours{more}"
