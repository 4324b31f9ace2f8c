"""Starts of recipes: processes of this machine, or tasks of a Ray cluster, each of which has one node's devices."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from avar_rl.runtime.stopping import INTERRUPTED, die_with_parent
from avar_rl.study.study_file import Resources

LOST = 75  # exit status of a recipe that lost a member, or whose node is gone; the same command resumes it


class Started(Protocol):
    """A recipe at work."""

    def status(self) -> int | None:
        """Its exit status; None while it runs."""

    def stop(self) -> None:
        """Passes on a signal: it finishes in good order. A second one, two seconds later or more, ends it at once."""


class Launcher(Protocol):
    """Where recipes run. room: how many at a time; None: as many as there are."""

    room: int | None

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Started: ...

    def close(self) -> None:
        """Behind the last one."""


class LocalLauncher:
    """Processes of this machine, which are asked to stop when this one dies."""

    def __init__(self, room: int):
        self.room: int | None = room

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Started:
        return _Process(_spawn(command, environment, log))

    def close(self) -> None:
        pass


class _Process:
    def __init__(self, process: subprocess.Popen):
        self._process = process

    def status(self) -> int | None:
        status = self._process.poll()
        return status if status is None or status >= 0 else 128 - status

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)


def _spawn(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen:
    """A session of its own: a Ctrl-C reaches it through this process alone, once."""
    log.parent.mkdir(parents=True, exist_ok=True)
    tied = partial(die_with_parent, signal.SIGTERM, os.getpid())
    with log.open("ab") as said:
        return subprocess.Popen(
            command, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=tied
        )


class RayLauncher:
    """Tasks of the cluster that RAY_ADDRESS names; Ray decides how many fit at a time.

    A recipe has a task's devices for itself and starts a Ray of its own on them: RAY_ADDRESS is not passed on. Every
    node needs this checkout, its environment and the study's folders under the same paths.

    Raises (when made): ValueError, no Ray answers, or no node has what a run takes.
    """

    def __init__(self, resources: Resources):
        import ray

        self.room: int | None = None
        address = os.environ["RAY_ADDRESS"]
        try:
            ray.init(address, log_to_driver=False)
        except ConnectionError as error:
            raise ValueError(f"RAY_ADDRESS={address}: no Ray answers there; start one, or unset RAY_ADDRESS") from error
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(_fits(resources, node) for node in nodes):
            ray.shutdown()
            raise ValueError(
                f"resources: a run takes {resources.gpus:g} GPUs and {resources.cpus:g} CPUs of one node, and no node "
                f"of the cluster at {address} has them"
            )
        self._task = ray.remote(_on_a_node).options(num_gpus=resources.gpus, num_cpus=resources.cpus, max_retries=0)

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Started:
        own = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
        return _Task(self._task.remote([*command], own, log.absolute(), os.getcwd()))

    def close(self) -> None:
        import ray

        ray.shutdown()


def _fits(resources: Resources, node: Mapping[str, float]) -> bool:
    return node.get("GPU", 0) >= resources.gpus and node.get("CPU", 0) >= resources.cpus


class _Task:
    def __init__(self, reference: Any):
        self._reference = reference

    def status(self) -> int | None:
        import ray
        from ray.exceptions import RayError, TaskCancelledError

        if not ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            return ray.get(self._reference)
        except TaskCancelledError:  # before it had a place
            return INTERRUPTED
        except RayError:  # its worker or node is gone
            return LOST

    def stop(self) -> None:
        import ray

        ray.cancel(self._reference, force=False)


def _on_a_node(command: Sequence[str], environment: Mapping[str, str], log: Path, folder: str) -> int:
    """The task: a recipe on the devices that Ray gave it. `ray.cancel` is passed on as SIGTERM; returns its status."""
    os.chdir(folder)
    # ray.cancel acts as SIGINT, which a script's background commands, and all that they start, ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    devices = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ}
    process = _spawn(command, {**environment, **devices}, log)
    while True:
        try:
            while (status := process.poll()) is None:
                time.sleep(0.2)  # Ray's interruption comes between instructions of Python, not into a system call
            return status if status >= 0 else 128 - status
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
