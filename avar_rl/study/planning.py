"""Which recipes a study runs: one for each arm and seed, and before them, once, the stages that several have in common.

Two runs share a stage where its command and those of all stages before it are equal, but for the runs' own folders.
Folders are named after a digest of the commands, so that a changed study never meets the files of another one.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avar_rl.runtime.recipe_plan import RecipeStage, read_plan
from avar_rl.study.study_file import OF_THE_MACHINE, TAKEN, Knob, Study, recipe_knobs

_OUT = "/run-of-a-study"  # stands for the folder of a run where it is planned; no file of that name is ever touched


@dataclass(frozen=True)
class ArmRun:
    """One arm with one seed.

    stages: all of the recipe's, their commands with _OUT for the run's folder.
    digests: of each stage with all before it.
    """

    arm: str
    seed: int
    stages: tuple[RecipeStage, ...]
    digests: tuple[str, ...]

    @property
    def name(self) -> str:
        """Unique within the study, and a file's name."""
        return f"{self.arm}-{self.seed}"


@dataclass(frozen=True)
class Job:
    """One start of the recipe.

    name: for people.
    out: its folder, absolute.
    start: the job whose folder it starts from, by its folder; None: from nothing.
    until: the last stage; None: the recipe's last.
    own: the stages that are run here, not taken over.
    run: what the environment and the arguments are those of; for shared stages one of the runs that share them.
    shared: whether others start from here.
    """

    name: str
    out: Path
    start: Path | None
    until: str | None
    own: tuple[RecipeStage, ...]
    run: ArmRun
    shared: bool

    @property
    def finished(self) -> bool:
        """Whether shared stages are there; a run counts as finished by its result, not here."""
        return self.shared and (self.out / "stages" / (self.until or "")).is_file()


def environment_of(study: Study, arm: str, seed: int, out: Path, until: str | None) -> dict[str, str]:
    """The environment that a run's recipe gets: this process's, without what a study sets itself, and the knobs."""
    kept = {name: value for name, value in os.environ.items() if name not in TAKEN}
    knobs = {name: _filled(_text(value), seed, out) for name, value in study.knobs_of(arm).items()}
    last = {"UNTIL": until} if until is not None else {}
    return {**kept, **knobs, **last, "OUT": str(out), "SEED": str(seed)}


def command_of(study: Study, arm: str, seed: int, out: Path) -> list[str]:
    """The command line of a run's recipe."""
    return ["bash", study.recipe, *(_filled(override, seed, out) for override in study.overrides_of(arm))]


def _text(value: Knob) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def _filled(text: str, seed: int, out: Path) -> str:
    return text.replace("{seed}", str(seed)).replace("{out}", str(out))


def arm_runs(study: Study) -> list[ArmRun]:
    """All runs, seed by seed, planned by the recipe itself.

    Raises:
        ValueError: the recipe cannot plan them, two would be the same, or the environment sets a knob.
    """
    for name in sorted(recipe_knobs(Path(study.recipe)) - {*OF_THE_MACHINE}):
        if name in os.environ:
            raise ValueError(
                f"{name}={os.environ[name]} is set in the environment, which {study.recipe} would read: unset it, or "
                "put it under the study's knobs"
            )
    seeds = dict.fromkeys(seed for arm in study.arms for seed in study.seeds_of(arm))
    runs = [
        _planned(study, arm, seed)
        for seed in sorted(seeds)
        for arm in study.arms
        if seed in study.seeds_of(arm)
    ]  # fmt: skip
    seen: dict[str, ArmRun] = {}
    for run in runs:
        other = seen.setdefault(run.digests[-1], run)
        if other is not run and other.arm == run.arm:
            raise ValueError(f"{study.recipe} runs the same with SEED={other.seed} and {run.seed}: it needs the knob")
        if other is not run:
            raise ValueError(f"arms {other.arm} and {run.arm} run the same commands: they differ in nothing")
    return runs


def _planned(study: Study, arm: str, seed: int) -> ArmRun:
    until = study.arms[arm].until
    environment = environment_of(study, arm, seed, Path(_OUT), until) | {"DRY_RUN": "plan"}
    done = subprocess.run(
        command_of(study, arm, seed, Path(_OUT)), env=environment, capture_output=True, text=True, timeout=600
    )
    if done.returncode or not done.stdout:
        said = (done.stderr.strip().splitlines() or ["it names no stage"])[-1]
        raise ValueError(f"arm {arm}: {study.recipe} cannot plan it: {said}")
    stages = tuple(RecipeStage(s.name, tuple(map(_anywhere, s.words))) for s in read_plan(done.stdout))
    return ArmRun(arm, seed, stages, digests(stages))


def _anywhere(word: str) -> str:
    """A command's word as it is on every machine: the interpreter's path is no part of what is run."""
    return "python" if re.fullmatch(r"/.*/bin/python", word) else word


def digests(stages: Sequence[RecipeStage]) -> tuple[str, ...]:
    """Of each stage with all before it, in 12 hexadecimal digits."""
    found, so_far = [], hashlib.sha256()
    for stage in stages:
        so_far.update("\0".join((stage.name, str(len(stage.words)), *stage.words, "")).encode())
        found.append(so_far.hexdigest()[:12])
    return tuple(found)


def jobs_of(study: Study, runs: Sequence[ArmRun]) -> list[Job]:
    """All starts of the recipe, each behind the one that it starts from.

    Shared stages become a job where the paths of runs part behind them, so that each stage is run once.
    """
    users: dict[str, list[ArmRun]] = defaultdict(list)
    for run in runs:
        for digest in run.digests:
            users[digest].append(run)
    root = Path(study.out).absolute()
    jobs: dict[Path, Job] = {}
    for run in runs:
        start, begin = None, 0
        for end in _partings(run, users):
            out = root / "shared" / f"{run.stages[end].name}-{run.digests[end]}"
            name = f"up to {run.stages[end].name}: {_those(users[run.digests[end]])}"
            own = run.stages[begin : end + 1]
            jobs.setdefault(out, Job(name, out, start, run.stages[end].name, own, run, shared=True))
            start, begin = out, end + 1
        out = root / "runs" / f"{run.name}-{run.digests[-1]}"
        until = study.arms[run.arm].until
        jobs[out] = Job(f"{run.arm} with seed {run.seed}", out, start, until, run.stages[begin:], run, shared=False)
    return list(jobs.values())


def _partings(run: ArmRun, users: Mapping[str, Sequence[ArmRun]]) -> list[int]:
    """Places of the stages that are shared and behind which at least one of those who share them goes another way."""
    shared = [len(users[digest]) for digest in run.digests]
    after = [*shared[1:], 0]
    return [place for place, count in enumerate(shared) if count > 1 and after[place] < count]


def _those(runs: Sequence[ArmRun]) -> str:
    arms, seeds = dict.fromkeys(run.arm for run in runs), dict.fromkeys(run.seed for run in runs)
    named = ", ".join(arms) if len(arms) <= 3 else f"{len(arms)} arms"
    return f"{named}; seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def check_arms(study: Study, runs: Sequence[ArmRun]) -> list[str]:
    """Has the recipe check every arm's configurations, paths and needs (its dry run), once for all seeds.

    Returns:
        Sentences on what is at fault.
    """
    faults: dict[str, None] = {}
    for run in {run.arm: run for run in reversed(runs)}.values():
        out = Path(study.out).absolute() / "checked"  # is not made
        environment = environment_of(study, run.arm, run.seed, out, study.arms[run.arm].until) | {"DRY_RUN": "1"}
        done = subprocess.run(
            command_of(study, run.arm, run.seed, out), env=environment, capture_output=True, text=True, timeout=1800
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("avar recipe: ")]
            told = [line.removeprefix("avar recipe: ") for line in said if not line.startswith("avar recipe: note: ")]
            for sentence in told or done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]:
                faults[f"arm {run.arm}: {sentence}"] = None
    return list(faults)
