"""A member of a run that was lost: which, where, and what it probably was."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

# Where the kernel counts the processes that it ended for want of memory: in this container, else on the whole machine.
_OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


LOST = 75  # exit status of a training command that lost a member; the same command resumes


@dataclass(frozen=True)
class Loss:
    """A member that ended before the run did.

    member: what it was, with its process: "reward worker reward_loop_worker_1 (process 4711)".
    node: where it ran: "10.0.0.2 (host gpu-2)"; "" where the member is a node.
    cause: what it probably was, as far as Ray, vLLM and the kernel tell.
    status: the exit status that it gives the command.
    """

    member: str
    node: str
    cause: str
    status: int = LOST

    def __str__(self) -> str:
        where = f" on node {self.node}" if self.node else ""
        return f"{self.member}{where} was lost: {self.cause}"


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory on this machine; 0 where it does not count them."""
    for path in _OOM_COUNTERS:
        if path.is_file():
            for line in path.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def cause_of_exit(status: int) -> str:
    """What the exit status of a process (negative: minus a signal's number) says about its end."""
    if status == -signal.SIGKILL:
        return "killed (signal 9), by hand, by a scheduler or by the kernel for want of memory"
    if status < 0:
        return f"ended by signal {-status} ({signal.Signals(-status).name})"
    return f"it ended by itself with exit status {status}, and what it said stands above"
