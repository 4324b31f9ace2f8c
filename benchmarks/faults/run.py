"""One start of a stage, watched: what it prints and when, its processes, how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil

from benchmarks.faults.stages import ROOT

_STEP = re.compile(r"\bstep (\d+) \|")  # the console's line of a finished step (avar_rl/verl_plugin/watch/console.py)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Run:
    """A stage that was started in a session of its own. Its output is read as it comes.

    struck_at: when the fault was done (`time.monotonic()`), set by `strike` or by the fault itself.
    lines: (seconds since the start of this machine, text) of everything printed, stdout and stderr in one.
    """

    def __init__(self, command: list[str], folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.struck_at: float | None = None
        self.lines: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"AVAR_RUN": str(folder), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with (self.folder / "output.log").open("a") as log:
            for line in self.process.stdout:
                self.lines.append((time.monotonic(), _COLOUR.sub("", line.rstrip())))
                log.write(line)
                log.flush()

    def steps(self) -> list[int]:
        """The numbers of the steps whose line was printed, in order."""
        return [int(found[1]) for _, line in self.lines if (found := _STEP.search(line))]

    def wait_for(self, happened, what: str, seconds: float = 1800) -> None:
        """Waits until `happened()`. RuntimeError: the run ended, or took longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not come: {self.folder / 'output.log'}")
            time.sleep(0.05)

    def wait_for_step(self, step: int) -> None:
        """Waits until the line of `step` was printed."""
        self.wait_for(lambda: step in self.steps(), f"step {step}")

    def descendants(self) -> list[psutil.Process]:
        """The processes that this run has started, themselves or through others, and that still live."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def member(self, name: str, which: int = 0) -> psutil.Process:
        """The `which`-th process, by its id, whose title or command line contains `name`.

        RuntimeError: there is none; names those that live.
        """
        titles = {process.pid: _title(process) for process in self.descendants()}
        found = sorted(pid for pid, title in titles.items() if name in title)
        if len(found) <= which:
            raise RuntimeError(f"no process {which} of {name}: {sorted(set(titles.values()))}")
        return psutil.Process(found[which])

    def strike(self, process: psutil.Process, number: int = signal.SIGKILL) -> None:
        """Sends a signal to a process of this run, and remembers when."""
        self.struck_at = time.monotonic()
        process.send_signal(number)

    def end(self, seconds: float) -> int | None:
        """Waits for the end. Returns the exit status; None where it still ran after `seconds`, and was killed."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
            for process in [*self.descendants(), psutil.Process(self.process.pid)]:
                process.kill()
            self.process.wait()
        self._reader.join(10)
        return status

    def last_words(self) -> tuple[float, str]:
        """When the last line was printed, and what it says."""
        return next(((at, line) for at, line in reversed(self.lines) if line.strip()), (0.0, ""))


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
