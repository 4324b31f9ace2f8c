"""What a training run says and does when a part of it is killed or damaged: prints the tables of docs/reliability.md.

The faults of a stage strike one training of the miniature's SFT or GRPO, on this machine, without a GPU: the same
command is started again after each, and in that start the next one strikes. Ten further kills are drawn by chance, in a
training of their own. After the last fault the training goes to its end: every step must be in its metrics once, and
its weights are compared with those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.faults import cases
from benchmarks.faults.chain import Ending, ending, every_step_once, train, undisturbed
from benchmarks.faults.fault import Outcome, RunFault
from benchmarks.faults.stages import STEPS, World
from benchmarks.faults.weights import apart

HEAD = "| fault | stage | s to the sentence | s to the end | exit | left | step | resumed from | the sentence |"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns 0; 1 where a fault was not done, a run hung or a training did not end well; 2 after a mistake of the user.
    """
    args = _arguments(argv)
    chosen = [fault for fault in every_fault() if _wanted(fault, args.only)]
    if args.list:
        print("\n".join(f"{fault.stage}, {fault.chain}: {fault.name}" for fault in chosen))
        return 0
    if not chosen:
        print(f"faults: no fault has {' or '.join(args.only)} in its name; --list names them", file=sys.stderr)
        return 2
    work = args.work.resolve()
    world = World(work / "world")
    world.make()
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 is a hang where the machine has other work
    good = True
    for (stage, chain), faults in groupby(sorted(chosen, key=_chain_of), key=_chain_of):
        wanted = list(faults)
        print(f"\n{HEAD}\n|{'---|' * (HEAD.count('|') - 1)}", flush=True)
        folder = work / f"{stage}_{chain.replace(' ', '_')}"
        command = world.command(stage, folder / "checkpoints")
        outcomes, status = train(wanted, command, folder, lambda outcome: print(row(outcome, work), flush=True))
        quiet = [undisturbed(stage, world, work / f"undisturbed_{stage}_{n}") for n in range(args.undisturbed)]
        end = ending(stage, status, folder, world, quiet[0] if quiet else None)
        print(f"\n{stage}, {chain}: {said_of(stage, end)}", flush=True)
        for other in quiet[1:]:
            noise = apart(other, quiet[0], world.start_weights(stage))
            print(f"two undisturbed runs: {said_of_weights(noise)}", flush=True)
        hung = any(outcome.status == "hangs" for outcome in outcomes)
        good = good and len(outcomes) == len(wanted) and not hung and status == 0 and every_step_once(stage, end)
    return 0 if good else 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("outputs/faults"), help="a folder for the runs")
    parser.add_argument("--only", action="append", metavar="WORD", help="faults whose name, stage or chain has it")
    parser.add_argument(
        "--undisturbed", type=int, default=1, metavar="N", help="undisturbed runs, for comparison; 0: none"
    )
    parser.add_argument("--list", action="store_true", help="name the faults, and run none")
    return parser.parse_args(argv)


def every_fault() -> list[RunFault]:
    """The faults of all modules in `cases`."""
    names = sorted(module.name for module in pkgutil.iter_modules(cases.__path__))
    modules = [importlib.import_module(f"{cases.__name__}.{name}") for name in names]
    return [fault for module in modules for fault in module.FAULTS]


def _chain_of(fault: RunFault) -> tuple[str, str]:
    return fault.stage, fault.chain


def _wanted(fault: RunFault, words: list[str] | None) -> bool:
    return not words or any(word in f"{fault.stage} {fault.chain} {fault.name}" for word in words)


def row(outcome: Outcome, work: Path) -> str:
    """An outcome as a row of the table; paths below `work` are shortened."""
    said, ended = outcome.seconds
    name = f"{outcome.fault.name} ({outcome.what})" if outcome.what else outcome.fault.name
    sentence = re.sub(rf"{re.escape(str(work))}/\S*?checkpoints", "…", outcome.sentence)
    cells = [name, outcome.fault.stage, f"{said:.1f}" if sentence and said else "", f"{ended:.1f}", outcome.status]
    cells += [outcome.left, *("-" if it is None else it for it in (outcome.step, outcome.resumed)), sentence]
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def said_of(stage: str, end: Ending) -> str:
    """How a training ended: its status, its steps, and its weights."""
    steps = f"steps 1 to {STEPS[stage]}, each once" if every_step_once(stage, end) else f"WRONG steps {end.steps}"
    weights = f"; {said_of_weights(end.apart)}" if end.apart else ""
    return f"exit {end.status}; {steps}{weights}"


def said_of_weights(apart: tuple[float, float]) -> str:
    """What `distance` gives, in words."""
    if apart == (0.0, 0.0):
        return "weights equal bit by bit"
    return f"weights differ by at most {apart[0]:.2g}, as a whole by {apart[1]:.2g} of the way from their start"


if __name__ == "__main__":
    sys.exit(main())
