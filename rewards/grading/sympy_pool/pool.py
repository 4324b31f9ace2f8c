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
    """A question went unanswered: why, and after how many seconds of work."""


class Worker:
    """A running `rewards.grading.sympy_pool.worker`. One caller at a time."""

    def __init__(self) -> None:
        root = str(Path(__file__).parents[3])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rewards.grading.sympy_pool.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
        )
        self._received = b""
        self._ready = False

    def wait_ready(self) -> None:
        """Returns once the worker has imported everything. RuntimeError: it does not start."""
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
        """TimeoutError: over the limit. EOFError or BrokenPipeError: the process died."""
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self._read_line(limit_s))

    def _read_line(self, limit_s: float) -> str:
        deadline = time.monotonic() + limit_s
        descriptor = self.process.stdout.fileno()
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
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):  # what was still buffered for a dead process
                pipe.close()


class Pool:
    """`size` workers, each started when first needed."""

    def __init__(self, size: int = SIZE) -> None:
        self.free: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        self.workers: set[Worker] = set()
        for _ in range(size):
            self.free.put(None)

    def ask(self, task: str, a: Node, b: Node, limit_s: float) -> tuple[bool | None, float]:
        """The worker's verdict and its seconds. GaveUpError: over the limit, or the worker died, twice."""
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

    def _start(self) -> Worker:
        worker = Worker()
        self.workers.add(worker)
        return worker

    def _end(self, worker: Worker) -> None:
        self.workers.discard(worker)
        worker.kill()

    def warm(self) -> None:
        """Starts a worker and waits for it."""
        worker = self.free.get()
        try:
            worker = worker or self._start()
            worker.wait_ready()
        finally:
            self.free.put(worker)

    def close(self) -> None:
        for worker in list(self.workers):
            self._end(worker)


_lock = threading.Lock()
_pool: Pool | None = None


def shared() -> Pool:
    """This process's pool."""
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
    """A tree as JSON."""
    value = node.value if node.value is None or isinstance(node.value, str) else f"{node.value}"
    return [node.op, value, [encoded(arg) for arg in node.args]]
