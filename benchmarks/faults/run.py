"""One start of a stage, watched: what it prints and when, its processes, how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.faults.stages import ROOT

# The console's line of a finished step: GRPO's (avar_rl/verl_plugin/watch/console.py), and that of verl's own logger.
_STEP = re.compile(r"\bstep(?: (\d+) \||:(\d+) - )")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_GONE = 30.0  # seconds after the command's end in which what it has started is to be gone, too
_TRAINS_ON = 10.0  # seconds after a fault; steps that are finished later show that it did not end the run


@dataclass(frozen=True)
class Strike:
    """A fault that was done: `time.monotonic()`, the last step that was finished, the processes, what was struck."""

    at: float
    step: int | None
    family: list[psutil.Process]
    what: str


class Run:
    """A stage that was started in a session of its own. Its output is read as it comes.

    lines: (`time.monotonic()`, text) of everything printed, stdout and stderr in one.
    struck: the fault, once `harm` has done it.
    """

    def __init__(self, command: Sequence[str], folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.struck: Strike | None = None
        self.lines: list[tuple[float, str]] = []
        self.began_at = time.monotonic()
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
        log = os.open(self.folder / "output.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), _COLOUR.sub("", line.rstrip())))
            with contextlib.suppress(OSError):  # a full disk may be the fault
                os.write(log, line.encode())
        os.close(log)

    def steps(self, since: float = 0.0) -> list[int]:
        """The numbers of the steps whose line was printed after `since`, in order, each once."""
        found = (_STEP.search(line) for at, line in list(self.lines) if at > since)
        return list(dict.fromkeys(int(match[1] or match[2]) for match in found if match))

    def wait_for(self, happened: Callable[[], object], what: str, seconds: float = 600) -> None:
        """Waits until `happened()`. RuntimeError: the run ended, or took longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not come: {self.folder / 'output.log'}")
            time.sleep(0.1)

    def wait_for_steps(self, count: int = 1) -> None:
        """Waits until this start has finished so many steps."""
        self.wait_for(lambda: len(self.steps()) >= count, f"step {count} of this start")

    def wait_for_line(self, words: str) -> None:
        """Waits until a line with `words` was printed."""
        self.wait_for(lambda: any(words in line for _, line in list(self.lines)), words)

    def family(self) -> list[psutil.Process]:
        """The command's process and all that it has started, itself or through others; none after its end."""
        if self.process.poll() is not None:
            return []
        command = psutil.Process(self.process.pid)
        return [command, *command.children(recursive=True)]

    def member(self, name: str, which: int = 0) -> psutil.Process:
        """The `which`-th process, in the order of their start, whose title or command line contains `name`.

        RuntimeError: there is none; names those that live.
        """
        titles = {process: title(process) for process in self.family()}
        found = sorted((it for it, text in titles.items() if name in text), key=lambda it: (it.create_time(), it.pid))
        if len(found) <= which:
            raise RuntimeError(f"no process {which} of {name}: {sorted(set(titles.values()))}")
        return found[which]

    def harm(self, do: Callable[[], object], what: str = "") -> None:
        """Does the harm, and remembers when, after which step and among which processes."""
        family, steps = self.family(), self.steps()
        self.struck = Strike(time.monotonic(), steps[-1] if steps else None, family, what)
        do()

    def outlast(self, seconds: float) -> tuple[int | None, bool]:
        """Waits for the end of a run that was struck. One that has not ended is killed, whole.

        Returns: the exit status, None where it had none after `seconds`; and whether it still trains then.
        """
        assert self.struck is not None
        since, deadline = self.struck.at + _TRAINS_ON, time.monotonic() + seconds
        while (status := self.process.poll()) is None and time.monotonic() < deadline and len(self.steps(since)) < 2:
            time.sleep(0.1)
        if status is None:
            kill(self.family())
            self.process.wait()
        return status, status is None and len(self.steps(since)) >= 2

    def last_of(self, family: Sequence[psutil.Process]) -> tuple[float, int]:
        """Waits until all of `family` are gone. Returns when that was, and how many were left after 30 s (killed)."""
        deadline = time.monotonic() + _GONE
        while (left := [process for process in family if lives(process)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        gone_at = time.monotonic()
        kill(left)
        self._reader.join(10)
        return gone_at, len(left)

    def last_words(self) -> tuple[float, str]:
        """When the last line was printed, and what it says."""
        return next(((at, line) for at, line in reversed(self.lines) if line.strip()), (0.0, ""))


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kills processes (signal 9), of which some may be gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def lives(process: psutil.Process) -> bool:
    """Whether a process is at work: one that has ended and waits for its parent to notice is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def title(process: psutil.Process) -> str:
    """What a process calls itself, or its command line; "" where it is gone."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
