"""What a person sees of a study at work: a line for each start and end, and on a terminal what runs now."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from avar_rl.runtime import tables

if TYPE_CHECKING:
    from avar_rl.study.planning import Job


class Telling:
    """Lines on standard output; faults on standard error. Use it as a context manager."""

    def __init__(self, total: int):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._screen, self._total, self._done = tables.console(), total, 0
        self._began: dict[str, float] = {}
        self._said: set[str] = set()
        what = TextColumn("{task.description}", markup=False)
        columns = (what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=self._screen, disable=not self._screen.is_terminal, transient=True)
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Telling:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        self._screen.print(text, markup=False, highlight=False, soft_wrap=True)

    def say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def started(self, job: Job) -> None:
        self._began[job.name] = time.monotonic()
        self.say(f"== begun: {job.name}")

    def finished(self, job: Job) -> None:
        self._end(job, "done")

    def failed(self, job: Job, fault: str) -> None:
        self._end(job, "failed")
        self.say(fault)

    def _end(self, job: Job, how: str) -> None:
        self._done += 1
        minutes = (time.monotonic() - self._began[job.name]) / 60
        self.say(f"== {how}: {job.name}, {minutes:.1f} minutes ({self._done} of {self._total})")

    def show(self, stages: Mapping[str, str]) -> None:
        """stages: what runs now → the stage that it is at."""
        at = "; ".join(f"{name}: {stage}" for name, stage in stages.items())
        self._bar.update(self._task, completed=self._done, description=tables.printable(at))

    def fault(self, sentence: str) -> None:
        print(f"avar study: {sentence}", file=sys.stderr, flush=True)
