"""A fault of a stage: does the harm to one start of it, and measures what that says and how it ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.run import Run, kill
from benchmarks.faults.stages import attended

LIMIT = 240.0  # seconds from the fault to the end of the run, before it counts as a hang


@dataclass(frozen=True)
class RunFault:
    """One row of the table.

    name: what is done, in a few words; the row's name, and what `--only` selects.
    stage: "sft" or "grpo".
    strike: waits for its moment in a run that has just been started, and does the harm by `Run.harm`.
    overrides: further settings of the start that is struck.
    chain: the faults of a stage and chain strike one training, one after the other.
    in_recipe: the start is that of a recipe's shell.
    """

    name: str
    stage: str
    strike: Callable[[Run], None]
    overrides: tuple[str, ...] = ()
    chain: str = "named faults"
    in_recipe: bool = False


@dataclass
class Outcome:
    """What one fault did.

    seconds: from the fault to the last line and to the end of the last process.
    status: how the command ended: an exit status, minus a signal's number, "hangs" or "trains on" (and was killed).
    step: the last step that was finished before the fault; None where this start had finished none.
    left: how many processes outlived the command by 30 s.
    sentence: the last line; "" where the command itself was killed and could say nothing.
    resumed: the step that the next start went on from; None as long as that is not known.
    """

    fault: RunFault
    what: str
    seconds: tuple[float, float]
    status: int | str
    step: int | None
    left: int
    sentence: str
    resumed: int | None = None


def measure(fault: RunFault, command: list[str], folder: Path) -> tuple[Outcome, Run]:
    """Starts a stage by its command, does the harm, and waits for the end."""
    command = [*command, *fault.overrides]
    run = Run(attended(command) if fault.in_recipe else command, folder)
    try:
        fault.strike(run)
    except BaseException:
        kill(run.family())
        raise
    struck = run.struck
    assert struck is not None, f"{fault.name} never struck"
    status, trains_on = run.outlast(LIMIT)
    gone_at, left = run.last_of(struck.family)
    at, sentence = run.last_words()
    was_killed = status == -signal.SIGKILL and not fault.in_recipe
    if at < struck.at or trains_on or was_killed:  # then the line is no word on the fault
        at, sentence = struck.at, ""
    ended = status if status is not None else "trains on" if trains_on else "hangs"
    seconds = (at - struck.at, gone_at - struck.at)
    return Outcome(fault, struck.what, seconds, ended, struck.step, left, sentence), run
