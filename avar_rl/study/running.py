"""Runs a study: starts every recipe whose start is there, keeps its result, and goes on where another one failed."""

from __future__ import annotations

import fcntl
import re
import time
from collections.abc import Collection, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from avar_rl.runtime.stopping import INTERRUPTED, StopSignals
from avar_rl.study.forking import fork, written_to
from avar_rl.study.launching import LOST, Launcher, Started
from avar_rl.study.planning import Job, command_of, environment_of
from avar_rl.study.results import is_current, keep_result
from avar_rl.study.study_file import Study
from avar_rl.study.telling import Telling

_LOOK_EVERY = 0.2  # seconds
MISTAKE = 2  # exit status of a recipe, and of a command, after a user's mistake


def jobs_to_run(study: Study, jobs: Sequence[Job], arms: Collection[str], seeds: Collection[int]) -> list[Job]:
    """Those of `arms` and `seeds` without a result, and the shared ones they start from, as far as not finished."""
    wanted: dict[Path, Job] = {}
    by_out = {job.out: job for job in jobs}
    for job in jobs:
        wanted_now = not job.shared and job.run.arm in arms and job.run.seed in seeds
        if not wanted_now or is_current(study, job.run):
            continue
        chain = [job]
        while chain[-1].start is not None and not (chain[-1].out / "stages").is_dir():
            chain.append(by_out[chain[-1].start])
        wanted |= {one.out: one for one in reversed(chain) if not one.finished}
    return [job for job in jobs if job.out in wanted]


@contextmanager
def the_only_one(study: Study):
    """Holds the study's folder. ValueError: another process does."""
    folder = Path(study.out)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another `avar study` is at work in {folder}: wait for it, or set `out`") from None
        yield


@dataclass
class Sitting:
    """waiting, running, failed: what the jobs are at. statuses: of recipes that did not end with 0."""

    waiting: list[Job]
    running: dict[Path, tuple[Job, Started]] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)


class StudyRun:
    """One sitting of a study.

    Args:
        jobs: those to run, each behind the one that it starts from.
    """

    def __init__(self, study: Study, jobs: Sequence[Job], launcher: Launcher, telling: Telling):
        self._study, self._launcher, self._telling = study, launcher, telling
        self._at = Sitting(list(jobs))
        self._jobs = {job.out: job for job in jobs}
        self._asked, self._passed_on = 0, 0  # signals
        self._signals = StopSignals(lambda name: self._ask(), self._ask)

    def run(self) -> int:
        """Runs all that can be run.

        Returns:
            The exit status: 0 all is done, 130 after a signal, 75 where every failure was the loss of a member, which
            the same command resumes, 2 where every one was a user's mistake, else 1.
        """
        self._signals.install()
        while self._at.running or (self._at.waiting and not self._signals.requested):
            if not self._signals.requested:
                self._start_what_can()
            if self._passed_on < self._asked:
                self._pass_on()
            for job, started in list(self._at.running.values()):
                if (status := started.status()) is not None:
                    del self._at.running[job.out]
                    self._ended(job, status)
            self._telling.show({job.name: _stage_of(self._log(job)) for job, _ in self._at.running.values()})
            time.sleep(_LOOK_EVERY)
        for sentence in self._at.failed.values():
            self._telling.fault(sentence)
        if self._signals.requested:
            return INTERRUPTED
        kinds = {*self._at.statuses}
        return 0 if not kinds else kinds.pop() if kinds in ({LOST}, {MISTAKE}) else 1

    def _start_what_can(self) -> None:
        for job in list(self._at.waiting):
            if job.start in self._at.failed:
                self._at.waiting.remove(job)
                self._at.failed[job.out] = f"{job.name}: not started, as what it starts from failed"
            elif self._is_ready(job):
                self._at.waiting.remove(job)
                self._start(job)

    def _is_ready(self, job: Job) -> bool:
        if self._launcher.room is not None and len(self._at.running) >= self._launcher.room:
            return False
        if job.start in self._at.running or any(other.out == job.start for other in self._at.waiting):
            return False
        if _held(job.out):
            self._telling.say_once(f"{job.name}: waits for the recipe of an earlier sitting in {job.out}")
            return False
        return True

    def _start(self, job: Job) -> None:
        if job.start is not None:
            fork(job.start, job.out)
        run = job.run
        environment = environment_of(self._study, run.arm, run.seed, job.out, job.until)
        command = command_of(self._study, run.arm, run.seed, job.out)
        self._at.running[job.out] = job, self._launcher.start(command, environment, self._log(job))
        self._telling.started(job)

    def _ended(self, job: Job, status: int) -> None:
        fault = self._fault(job, status)
        if fault is None:
            self._telling.finished(job)
        elif not (status == INTERRUPTED and self._signals.requested):
            self._at.statuses.append(status)
            self._at.failed[job.out] = fault
            self._telling.failed(job, fault)

    def _fault(self, job: Job, status: int) -> str | None:
        """Keeps the result of a run; a sentence on what is wrong with it."""
        if changed := written_to(job.out):
            return (
                f"{job.name}: a stage wrote into {changed[0]}, which other runs share: remove {job.out} and that "
                "folder, and have the stage write elsewhere"
            )
        if status != 0:
            return f"{job.name}: {self._study.recipe} ended with status {status}: {_last_line(self._log(job))}"
        if not job.shared:
            try:
                keep_result(self._study, job)
            except (OSError, ValueError) as error:
                return f"{job.name}: no result could be kept: {error}"
        return None

    def _log(self, job: Job) -> Path:
        return job.out.parents[1] / "logs" / f"{job.out.name}.log"

    def _ask(self) -> None:
        self._asked += 1  # in a handler; the loop does the rest

    def _pass_on(self) -> None:
        self._passed_on += 1
        self._telling.say_once("stopping: every recipe ends in good order; a second signal ends them at once")
        for _, started in self._at.running.values():
            started.stop()


def _held(out: Path) -> bool:
    """Whether a recipe holds the lock of its folder (recipes/stages.sh)."""
    try:
        with (out / ".lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _tail(log: Path) -> str:
    if not log.is_file():
        return ""
    with log.open("rb") as said:
        said.seek(max(0, log.stat().st_size - 8192))
        return said.read().decode(errors="replace")


def _stage_of(log: Path) -> str:
    """The stage that a recipe has begun last, as it says itself."""
    found = re.findall(r"^== (\w+)$", _tail(log), flags=re.MULTILINE)
    return found[-1] if found else "beginning"


def _last_line(log: Path) -> str:
    lines = _tail(log).strip().splitlines()
    return f"{lines[-1]} ({log})" if lines else f"it said nothing ({log})"
