"""Ends what a command leaves behind, however it ended: `python -m avar_rl.runtime.reaper`, which `start` starts.

The processes of a local Ray end with the command that started it, but for two: the agents of its node see two seconds
later that the node manager is gone, and then try for a minute to tell the control store, which is gone, too
(ray/_private/process_watcher.py of Ray 2.60). Once its parent is dead nothing tells whose an agent was, since Ray's
processes write their titles over command line and environment; so they are looked for while the command lives.
"""

import os
import select
import subprocess
import sys
import time

import psutil

from avar_rl.runtime.stopping import LINGER

_EVERY = 1.0  # seconds between two looks; what was started after the last one, by what died since, is not known
_reapers: list[subprocess.Popen] = []  # this process's own, whose stdin is open as long as this process lives


def start() -> None:
    """Starts the reaper of this process, unless it has one. Call it before what may be left behind is started."""
    if not _reapers:
        reaper = subprocess.Popen(
            [sys.executable, "-m", "avar_rl.runtime.reaper", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # whoever reads the command's output does not wait for the reaper
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )
        _reapers.append(reaper)


def main() -> None:
    """Waits for the end of the command: its process id is the argument, and it alone holds the other end of stdin.

    It lets go of that when Python's own end begins, which on a busy machine may take longer than what it leaves behind
    has time for; so its process is waited for, too.
    """
    head = int(sys.argv[1])
    command = {psutil.Process(head)} if psutil.pid_exists(head) else set()
    family = command
    while not select.select([sys.stdin], [], [], _EVERY)[0]:
        family = _living(family)
    while any(map(_is_at_work, command)):
        family = _living(family)
        time.sleep(0.1)
    deadline = time.monotonic() + LINGER
    while family := _living(family):
        if time.monotonic() >= deadline:
            for process in family:
                _kill(process)
        time.sleep(0.1)


def _living(family: set[psutil.Process]) -> set[psutil.Process]:
    """Those of a family that live, and what they have started, themselves or through others; without this process."""
    found: set[psutil.Process] = set()
    for process in sorted(family, key=psutil.Process.create_time):  # the eldest's descendants are most of the others
        if process not in found and _is_at_work(process):
            try:
                found |= {process, *process.children(recursive=True)}
            except psutil.NoSuchProcess:
                continue
    return {process for process in found if process.pid != os.getpid() and _is_at_work(process)}


def _is_at_work(process: psutil.Process) -> bool:
    """Whether it lives, and is not a dead one that its parent has not laid to rest."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    main()
