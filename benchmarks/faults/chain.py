"""One training of a stage that is struck by fault after fault, and started again by the same command after each."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.fault import Outcome, RunFault, measure
from benchmarks.faults.run import Run, kill
from benchmarks.faults.stages import STEPS, World
from benchmarks.faults.weights import apart

_LIMIT = 1800.0  # seconds for a start that nothing disturbs


@dataclass(frozen=True)
class Ending:
    """How a training ended whose last start was left alone.

    status: the exit status of that start.
    steps: those in the metrics file, in its order.
    apart: the largest difference of a weight from an undisturbed run's, and the difference as a share of the way that
        training went; None where there is no such run.
    """

    status: int | None
    steps: list[int]
    apart: tuple[float, float] | None


def train(
    faults: Sequence[RunFault], command: list[str], work: Path, told: Callable[[Outcome], None] = lambda outcome: None
) -> tuple[list[Outcome], int | None]:
    """Trains in `work`, which is emptied; each fault strikes one start, and the last start trains to the end.

    Args:
        told: is given each outcome as soon as the step is known that the next start went on from, or at the end.

    Returns: the outcomes of the faults that were done, and the exit status of the last start.

    Raises:
        RuntimeError: the last start does not end.
    """
    shutil.rmtree(work, ignore_errors=True)
    outcomes: list[Outcome] = []
    for fault in faults:
        try:
            outcome, run = measure(fault, command, work)
        except RuntimeError as error:  # its moment did not come, for one because the training was over
            print(f"faults: {fault.name} ({fault.stage}) was not done: {error}", file=sys.stderr)
            continue
        _resolve(outcomes, run, told)
        outcomes.append(outcome)
    run = Run(command, work)
    try:
        run.wait_for(lambda: run.process.poll() is not None, "the end", _LIMIT)
    finally:
        kill(run.family())
    run.last_of(())
    _resolve(outcomes, run, told)
    for outcome in outcomes:
        if outcome.resumed is None:  # the training was over
            told(outcome)
    return outcomes, run.process.returncode


def _resolve(outcomes: Sequence[Outcome], run: Run, told: Callable[[Outcome], None]) -> None:
    """Adds what a later start shows of the faults before it: where it went on, and what it says of what it found."""
    open_ones = [outcome for outcome in outcomes if outcome.resumed is None]
    if open_ones and not open_ones[-1].sentence:
        begins = f"avar {open_ones[-1].fault.stage}: "
        said = [line.removeprefix(begins) for _, line in run.lines if line.startswith(begins) and "global_step" in line]
        open_ones[-1].sentence = f"(the next start:) {'; '.join(said)}" if said else ""
    for outcome in open_ones:
        if steps := run.steps():
            outcome.resumed = steps[0] - 1
            told(outcome)


def ending(stage: str, status: int | None, work: Path, world: World, undisturbed: Path | None) -> Ending:
    """Reads what a training has left, and compares its weights with those of an undisturbed one, if there is one."""
    lines = (work / "logs" / f"{stage}.metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    return Ending(status, steps, apart(work, undisturbed, world.start_weights(stage)) if undisturbed else None)


def undisturbed(stage: str, world: World, work: Path) -> Path:
    """A training of the stage that nothing disturbs, in `work`, where it is kept. RuntimeError: it failed."""
    done = work / "done"
    if not done.is_file():
        _, status = train((), world.command(stage, work / "checkpoints"), work)
        if status != 0:
            raise RuntimeError(f"the undisturbed run ended with status {status}: {work / 'output.log'}")
        done.touch()
    return work


def every_step_once(stage: str, end: Ending) -> bool:
    """Whether the metrics file has every step of the training, in order, once."""
    return end.steps == list(range(1, STEPS[stage] + 1))
