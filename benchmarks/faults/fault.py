"""A fault of a stage: does the harm, measures what the run says and how it ends, and starts the same command again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.run import Run
from benchmarks.faults.stages import World

LIMIT = 240.0  # seconds from the fault to the end of the run, before it counts as a hang
RERUN_LIMIT = 1200.0  # seconds for the same command, which trains to the end


@dataclass(frozen=True)
class RunFault:
    """One row of the table.

    name: what is done, in a few words; the row's name, and what `--only` selects.
    stage: "sft" or "grpo".
    inject: waits for its moment in a run that has just been started, does the harm and sets `run.struck_at`.
    overrides: further settings of both starts.
    limit: seconds from the fault until the run counts as hanging.
    """

    name: str
    stage: str
    inject: Callable[[Run], None]
    overrides: tuple[str, ...] = ()
    limit: float = LIMIT


@dataclass(frozen=True)
class Outcome:
    """What one fault did.

    seconds: from the fault to the last line and to the end of the run.
    status: the exit status; None where the run hung.
    sentence: the last line.
    left: the numbers of processes that outlived the run by ten seconds.
    rerun: what the same command did then.
    """

    fault: RunFault
    seconds: tuple[float, float]
    status: int | None
    sentence: str
    left: int
    rerun: str


def measure(fault: RunFault, world: World, work: Path) -> Outcome:
    """Starts the fault's stage in `work`, which is emptied, does the harm, and starts the same command again."""
    shutil.rmtree(work, ignore_errors=True)
    command = [*world.command(fault.stage, work / "checkpoints"), *fault.overrides]
    run = Run(command, work)
    try:
        fault.inject(run)
        started = run.descendants()
    except RuntimeError:
        run.end(0)
        raise
    struck_at = run.struck_at
    assert struck_at is not None, f"{fault.name} never said that it struck"
    status = run.end(fault.limit)
    ended = time.monotonic()
    time.sleep(10)
    left = sum(process.is_running() for process in started)
    at, sentence = run.last_words()
    return Outcome(fault, (at - struck_at, ended - struck_at), status, sentence, left, _rerun(command, work))


def _rerun(command: list[str], work: Path) -> str:
    again = Run(command, work)
    status = again.end(RERUN_LIMIT)
    steps = again.steps()
    span = f"steps {steps[0]} to {steps[-1]}" if steps else "no step"
    return f"{span}, exit {status}"
