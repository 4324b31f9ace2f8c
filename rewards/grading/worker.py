"""The process in which sympy compares two trees: started, and killed when slow, by rewards.grading.pool.

Protocol: one JSON line in, `[task, a, b, seconds]`, one out, `{"verdict": true | false | null, "memory": bytes}`. A first
line `"ready"` is written once everything is imported. Trees arrive as data: no text is ever parsed by sympy.
"""

import json
import os
import resource
import select
import signal
import sys

MEMORY_LIMIT = 2 * 2**30  # bytes of address space: an expression that explodes fails instead of filling the machine
CHECK_PARENT_S = 5.0


def answer(task: str, a: list, b: list) -> bool | None:
    from rewards.grading import to_sympy

    try:
        return to_sympy.TASKS[task](a, b)
    except (MemoryError, RecursionError):
        return None
    except (ValueError, TypeError, NotImplementedError, ArithmeticError, AttributeError, IndexError, KeyError):
        return None  # sympy cannot: undecided, which the caller counts


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not end up between the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; this process ends when its stdin closes
    parent = os.getppid()
    one = ["number", "1", []]
    if answer("equal", ["sum", "k", [["symbol", "k", []], one, ["number", "3", []]]], ["number", "6", []]) is not True:
        raise RuntimeError("sympy does not find 1 + 2 + 3 equal to 6: is it the pinned version?")
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
        task, a, b, seconds = json.loads(line)
        # Second line of defence, should the parent be gone: SIGALRM's default action ends the process in any state.
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds + 1)
        verdict = answer(task, a, b)
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(json.dumps({"verdict": verdict, "memory": resident()}) + "\n")


if __name__ == "__main__":
    main()
