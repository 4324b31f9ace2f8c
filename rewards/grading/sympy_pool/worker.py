"""The process that answers symbolic questions with sympy: started by the pool, imports and warms up once.

Each question runs in a fork of it with a hard time limit and a memory limit: a fork that runs over is killed, the next
question gets a fresh one within milliseconds, and nothing grows. Protocol: one JSON line in, `[task, a, b, seconds]`;
one out, `{"verdict": true | false | null, "late": bool, "seconds": float}`; a first line `"ready"`. Trees arrive as
data: no text is ever parsed by sympy.
"""

import json
import os
import resource
import select
import signal
import sys
import time

MEMORY_LIMIT = 1536 * 2**20  # bytes of address space: an expression that explodes fails instead of filling the machine
CHECK_PARENT_S = 5.0


def answer(task: str, a: list, b: list) -> bool | None:
    """sympy's verdict on two encoded trees (see `to_sympy.TASKS`); None: it does not decide, or fails."""
    from rewards.grading.sympy_pool import to_sympy

    try:
        return to_sympy.TASKS[task](a, b)
    except (MemoryError, RecursionError):
        return None
    except (ValueError, TypeError, NotImplementedError, ArithmeticError, AttributeError, IndexError, KeyError):
        return None  # sympy cannot: undecided, which the caller counts


def _warm() -> None:
    """Loads what sympy loads on first use: sums, integrals, limits, the solver. RuntimeError: sympy is not itself."""
    one, three, x = ["number", "1", []], ["number", "3", []], ["symbol", "x", []]
    square = ["pow", "", [x, ["number", "2", []]]]
    checks = (
        ("equal", ["sum", "x", [x, one, three]], ["number", "6", []]),
        ("equal", ["sum", "x", [["pow", "", [["number", "1/2", []], x]], one, ["constant", "infinity", []]]], one),
        ("equal", ["integral", "x", [square, one, three]], ["number", "26/3", []]),
        ("equal", ["limit", "x", [["div", "", [square, x]], three, ["symbol", "", []]]], three),
        ("solve", ["relation", "<", [square, one]], ["interval", "()", [["number", "-1", []], one]]),
    )
    for task, a, b in checks:
        if answer(task, a, b) is not True:
            raise RuntimeError(f"sympy does not find {a} and {b} to be the same: is it the pinned version?")


def in_fork(task: str, a: list, b: list, limit_s: float) -> dict:
    """The `answer` that a fork gives within `limit_s` seconds; late: it took longer and was killed, or it died."""
    start = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Should this process be gone: SIGALRM's default action ends the fork in any state
        signal.setitimer(signal.ITIMER_REAL, 2 * limit_s + 1)
        os.write(writing, json.dumps(answer(task, a, b)).encode())
        os._exit(0)
    os.close(writing)
    try:
        in_time = select.select([reading], [], [], limit_s)[0]
        reply = os.read(reading, 64) if in_time else b""
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
    verdict = json.loads(reply) if reply else None
    return {"verdict": verdict, "late": not reply, "seconds": time.monotonic() - start}


def main() -> None:
    """Answers questions from standard input until it closes or the parent is gone."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not end up between the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; this process ends when its stdin closes
    parent = os.getppid()
    _warm()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    replies.write('"ready"\n')
    while True:
        # A forked sibling of the parent may hold the pipe open: watch the parent, too
        if not select.select([sys.stdin], [], [], CHECK_PARENT_S)[0]:
            if os.getppid() != parent:
                return
            continue
        line = sys.stdin.readline()
        if not line:
            return
        replies.write(json.dumps(in_fork(*json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
