"""The pool of worker processes for symbolic questions, each with a hard time limit.

Callable from any thread, from asyncio's executors and from Ray workers: no signals, no state tied to a thread. After a
fork the child makes its own pool. A limit runs from when a worker takes the question: neither queueing nor the worker's
start counts. Each question runs in a fork of its worker (`rewards.grading.sympy_pool.worker`), killed when late.
"""

import atexit
import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

from rewards.grading.parse.tree import Node

SIZE = 2
START_LIMIT_S = 300.0  # importing sympy on a busy machine
GRACE_S = 10.0  # for a worker to say that its fork was late; after that the worker itself is replaced


class GaveUpError(Exception):
    """A question went unanswered. Its arguments: why, and after how many seconds of work."""


class SympyWorker:
    """A running process of `rewards.grading.sympy_pool.worker`, for one caller at a time."""

    def __init__(self) -> None:
        root = str(Path(__file__).parents[3])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rewards.grading.sympy_pool.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert self.process.stdin is not None and self.process.stdout is not None  # both are pipes
        self._questions, self._replies = self.process.stdin, self.process.stdout
        self._received = b""
        self._ready = False

    def wait_ready(self) -> None:
        """Returns once the process has imported everything. RuntimeError: it does not start."""
        if self._ready:
            return
        try:
            self._ready = self._read_line(START_LIMIT_S) == '"ready"'
        except (TimeoutError, EOFError):
            pass
        if not self._ready:
            self.kill()
            raise RuntimeError("the grading process did not start (see its error above): is sympy installed?")

    def ask(self, question: list, limit_s: float) -> dict:
        """The process's reply to `[task, a, b, seconds]`, a mapping of verdict, late and seconds.

        Raises:
            TimeoutError: there is no reply within `limit_s` seconds.
            EOFError, BrokenPipeError: the process has died.
        """
        self._questions.write(json.dumps(question).encode() + b"\n")
        self._questions.flush()
        return json.loads(self._read_line(limit_s))

    def _read_line(self, limit_s: float) -> str:
        deadline = time.monotonic() + limit_s
        descriptor = self._replies.fileno()
        poll = select.poll()  # select() fails beyond 1024 descriptors, which a Ray worker can have
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self._received:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not poll.poll(1000 * remaining):
                raise TimeoutError
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise EOFError
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def kill(self) -> None:
        """Ends the process and closes its pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self._questions, self._replies):
            with contextlib.suppress(BrokenPipeError):  # what was still buffered for a dead process
                pipe.close()


class Pool:
    """At most `size` worker processes, each started when first needed; a caller waits while all are busy."""

    def __init__(self, size: int = SIZE) -> None:
        self.free: queue.LifoQueue[SympyWorker | None] = queue.LifoQueue()
        self.workers: set[SympyWorker] = set()
        for _ in range(size):
            self.free.put(None)

    def ask(self, task: str, a: Node, b: Node, limit_s: float) -> tuple[bool | None, float]:
        """What sympy says to `task` ("equal", "matrix" or "solve") of two trees, and the seconds it took.

        The verdict is None where sympy does not decide.

        Raises:
            GaveUpError: the question took over `limit_s` seconds, or ended its worker twice.
            RuntimeError: no worker starts.
        """
        question = [task, encoded(a), encoded(b), limit_s]
        worker = self.free.get()
        try:
            for _ in range(2):
                worker = worker or self._start()
                worker.wait_ready()
                try:
                    reply = worker.ask(question, limit_s + GRACE_S)
                except (TimeoutError, EOFError, BrokenPipeError):
                    self._end(worker)
                    worker = None
                    continue
                if reply["late"]:
                    raise GaveUpError(f"took over {limit_s:g} s", reply["seconds"])
                return reply["verdict"], reply["seconds"]
            raise GaveUpError("ended the grading process twice", 0.0)
        except RuntimeError:
            worker = None
            raise
        finally:
            self.free.put(worker)

    def _start(self) -> SympyWorker:
        worker = SympyWorker()
        self.workers.add(worker)
        return worker

    def _end(self, worker: SympyWorker) -> None:
        self.workers.discard(worker)
        worker.kill()

    def warm(self) -> None:
        """Starts a worker and waits until it is ready. RuntimeError: it does not start."""
        worker = self.free.get()
        try:
            worker = worker or self._start()
            worker.wait_ready()
        finally:
            self.free.put(worker)

    def close(self) -> None:
        """Ends every worker."""
        for worker in list(self.workers):
            self._end(worker)


_lock = threading.Lock()
_pool: Pool | None = None


def shared() -> Pool:
    """The one pool of this process, made when first asked for."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = Pool()
        return _pool


def _forget() -> None:
    """In a forked child: the parent's workers answer the parent, and a lock may have been held by another thread."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


@atexit.register
def close() -> None:
    """Ends this process's workers; a later question starts new ones."""
    global _pool
    if _pool is not None:
        _pool.close()
        _pool = None


def encoded(node: Node) -> list:
    """A tree as JSON: `[op, the name or the value of a number as text, arguments]`."""
    name = node.name if node.value is None else str(node.value)
    return [node.op, name, [encoded(arg) for arg in node.args]]
