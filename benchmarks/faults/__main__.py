"""What a run says and does when one of its parts is killed: prints the table of docs/reliability.md.

Each fault is done to the miniature's SFT or GRPO in mid-training, on this machine, without a GPU; two to four minutes a
fault. The table says how long it took to the last line and to the end, that line, the exit status, how many processes
were left ten seconds later, and what the same command did afterwards.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import cases
from benchmarks.faults.fault import Outcome, RunFault, measure
from benchmarks.faults.stages import World

HEAD = "| fault | stage | seconds to the sentence | to the end | exit | left | the same command then | sentence |"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0; 1 where a run hung; 2 after a mistake of the user."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("outputs/faults"), help="a folder for the runs")
    parser.add_argument("--only", action="append", metavar="WORD", help="faults whose name or stage has this word")
    parser.add_argument("--list", action="store_true", help="name the faults, and run none")
    args = parser.parse_args(argv)
    chosen = [fault for fault in every_fault() if _wanted(fault, args.only)]
    if args.list:
        print("\n".join(f"{fault.stage}: {fault.name}" for fault in chosen))
        return 0
    if not chosen:
        print(f"faults: no fault has {' or '.join(args.only)} in its name; --list names them", file=sys.stderr)
        return 2
    work = args.work.resolve()
    world = World(work / "world")
    world.make()
    print(f"{HEAD}\n|{'---|' * (HEAD.count('|') - 1)}", flush=True)
    outcomes = []
    for number, fault in enumerate(chosen):
        outcomes.append(measure(fault, world, work / f"run_{number}"))
        print(row(outcomes[-1]), flush=True)
    return int(any(outcome.status is None for outcome in outcomes))


def every_fault() -> list[RunFault]:
    """The faults of all modules in `cases`."""
    names = sorted(module.name for module in pkgutil.iter_modules(cases.__path__))
    modules = [importlib.import_module(f"{cases.__name__}.{name}") for name in names]
    return [fault for module in modules for fault in module.FAULTS]


def _wanted(fault: RunFault, words: list[str] | None) -> bool:
    return not words or any(word in f"{fault.stage} {fault.name}" for word in words)


def row(outcome: Outcome) -> str:
    """An outcome as a row of the table."""
    said, ended = outcome.seconds
    status = "hangs" if outcome.status is None else outcome.status
    cells = [outcome.fault.name, outcome.fault.stage, f"{said:.1f}", f"{ended:.1f}", status, outcome.left]
    cells += [outcome.rerun, outcome.sentence.replace("|", "\\|")]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
