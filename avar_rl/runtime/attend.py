"""Runs one command of a recipe and answers for all of its processes: `python -m avar_rl.runtime.attend … -- COMMAND …`.

- What the command says goes to its log, and what a person wants to follow to the console (`avar_rl.runtime.console`).
- SIGTERM or SIGINT is passed on, once; a second one, the end of `--notice`, or a minute after `--limit`, kills all.
- What it and all that it started used is added to `--used`, a line of JSON: seconds, processor seconds, status.
- Nothing that the command started outlives it, nor it this process, nor this process the recipe.

Exit status: the command's; 124 after the limit, 130 after a signal.
"""

import argparse
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil

from avar_rl.runtime.console import Console
from avar_rl.runtime.stopping import INTERRUPTED, LINGER, OUT_OF_TIME, StopSignals, adopt_orphans, die_with_parent, say

KILL_AFTER = 60.0  # seconds that a command has for its end when its limit is over
_SIGN_OF_LIFE = 20.0  # seconds from one to the next; recipes/stages.sh waits for some of them
_CENSUS = 2.0  # seconds from one look at all processes to the next
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Attendant:
    """One command, its processes and its deadlines.

    Args:
        console: where its output goes.
        limit, notice: seconds, 0 for none: of the whole command; from a first signal to the end of everything.
        alive: a file whose time of change tells others, every 20 seconds, that the command is still at work.
        used: a file that gets a line of JSON on what the command used.
    """

    def __init__(self, console: Console, limit: float, notice: float, alive: Path | None, used: Path | None = None):
        self._console, self._limit, self._notice, self._alive, self._used = console, limit, notice, alive, used
        self._late = False
        self._kill_at, self._sign_at, self._census_at = float("inf"), 0.0, 0.0
        self._seen: dict[psutil.Process, float] = {}  # processor seconds that each process had used when last looked at
        self._signals = StopSignals(self._pass_on, self._kill_all)

    def run(self, command: Sequence[str]) -> int:
        """Runs the command to its end, and returns the status to exit with."""
        adopt_orphans()
        begun = time.monotonic()
        tied = partial(die_with_parent, signal.SIGKILL, os.getpid())
        self._child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=tied
        )
        self._signals.install()
        self._over_at = time.monotonic() + self._limit if self._limit else float("inf")
        while self._child.poll() is None:
            self._read(0.2)
            self._watch(time.monotonic())
        self._end_leftovers()
        status = self._status()
        if self._used is not None:
            self._keep_used(time.monotonic() - begun, status)
        self._console.close(succeeded=status == 0)
        return status

    def _status(self) -> int:
        status = self._child.returncode
        if self._late:
            return OUT_OF_TIME
        if self._signals.requested and status != 0:
            return INTERRUPTED
        return status if status >= 0 else 128 - status

    def _keep_used(self, seconds: float, status: int) -> None:
        """Processor time as the kernel adds it up leaves out processes that nobody has waited for, as those of Ray's
        workers; the census leaves out the last two seconds of each. Either is a lower bound."""
        assert self._used is not None
        waited_for = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = max(waited_for.ru_utime + waited_for.ru_stime, sum(self._seen.values()))
        line = {"seconds": round(seconds, 2), "processor_seconds": round(processor, 2), "status": status}
        with self._used.open("a") as kept:
            kept.write(json.dumps(line) + "\n")

    def _read(self, seconds: float) -> bool:
        """Passes on what the command says within some seconds; False where there was nothing, or will be no more."""
        assert self._child.stdout is not None
        descriptor = self._child.stdout.fileno()
        if not select.select([descriptor], [], [], seconds)[0]:
            return False
        said = os.read(descriptor, 1 << 16)
        if not said:
            time.sleep(seconds)  # it has closed its output and is not gone yet
        self._console.write(said)
        return bool(said)

    def _watch(self, now: float) -> None:
        if now >= self._over_at:
            self._over_at, self._kill_at, self._late = float("inf"), now + KILL_AFTER, True
            say("the stage has reached its limit in time (STAGE_LIMIT) and is stopped")
            self._child.send_signal(signal.SIGTERM)
        if now >= self._kill_at:
            self._kill_at = float("inf")
            self._kill_all()
        if self._used is not None and now >= self._census_at:
            self._census_at = now + _CENSUS
            self._take_census()
        if self._alive is not None and now >= self._sign_at:
            self._sign_at = now + _SIGN_OF_LIFE
            os.utime(self._alive)

    def _take_census(self) -> None:
        for process in psutil.Process().children(recursive=True):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._seen[process] = times.user + times.system

    def _pass_on(self, name: str) -> None:
        if self._notice:
            self._kill_at = time.monotonic() + self._notice
        self._child.send_signal(signal.SIGTERM)

    def _kill_all(self) -> None:
        for process in psutil.Process().children(recursive=True):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def _end_leftovers(self) -> None:
        patience = time.monotonic() + (0.0 if self._late or self._signals.requested else LINGER)
        while self._living_children():
            if time.monotonic() >= patience:
                self._kill_all()
            self._read(0.1)
        while self._read(0.0):
            pass

    def _living_children(self) -> bool:
        """Whether processes of the command are left; those that ended are laid to rest."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return False
        return True


def seconds(text: str) -> float:
    """`90m`, `14d`, `30s`, `2h` or plain seconds, as timeout(1) has them. ValueError: it is none of these."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    return float(number) * _UNITS[unit]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command behind `--`; returns its status, 124 or 130 (see the module)."""
    parser = argparse.ArgumentParser(prog="python -m avar_rl.runtime.attend", description=__doc__)
    parser.add_argument("--log", type=Path, help="file that everything the command says is added to")
    parser.add_argument("--limit", type=seconds, default=0.0, help="such as 90m: how long the command may take")
    parser.add_argument("--notice", type=seconds, default=0.0, help="such as 30s: from a first signal to the end")
    parser.add_argument("--alive", type=Path, help="file to touch as long as the command is at work")
    parser.add_argument("--used", type=Path, help="file that a line on the time and processor time used is added to")
    parser.add_argument("--parent", type=int, help="process id of the recipe")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    die_with_parent(signal.SIGTERM, options.parent)
    try:
        console = Console(sys.stdout.fileno(), options.log)
    except OSError as error:
        print(f"cannot write the stage's log {options.log}: {error.strerror}; choose another OUT", file=sys.stderr)
        return 2
    return Attendant(console, options.limit, options.notice, options.alive, options.used).run(options.command)


if __name__ == "__main__":
    sys.exit(main())
