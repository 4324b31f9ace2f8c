"""A run on a real Ray whose members are plain actors of verl's names: kills one, and prints what `watched` raises.

`python members_worker.py worker|words|raylet|node|peer|silence`; the last line is JSON. With `command` it waits to be
killed itself.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import Any

import psutil

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")

import ray  # noqa: E402
import ray._private.worker  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from avar_rl.verl_plugin import cluster  # noqa: E402
from avar_rl.verl_plugin.health import last_words  # noqa: E402
from avar_rl.verl_plugin.health.watcher import MemberLostError, RunMembers, watched  # noqa: E402

SETTINGS = {"include_dashboard": False, "object_store_memory": 10**8}
remote: Any = ray.remote(num_cpus=0)  # whose results no type checker sees


@remote
class RewardLoopWorker:
    def pid(self) -> int:
        return os.getpid()


@remote
class TaskRunnerV1:
    def start(self, resources: dict[str, float]) -> int:
        """Starts two workers; one more is ended on purpose. Returns the process of the first."""
        worker: Any = RewardLoopWorker
        names = [f"reward_loop_worker_{i}" for i in range(2)]
        self.workers = [worker.options(name=name, resources=resources).remote() for name in names]
        ended = worker.remote()
        ray.get(ended.pid.remote())
        ray.kill(ended)
        return ray.get(self.workers[0].pid.remote())

    def run(self) -> None:
        threading.Event().wait()

    def stop(self) -> None:
        for worker in self.workers:
            ray.kill(worker)

    def hang(self) -> None:
        last_words.leave("no step finished within 3.0 minutes")
        os._exit(70)


def start_ray(two_nodes: bool) -> Any:
    """Starts Ray on this machine. Returns the second of two nodes; None where there is one."""
    if not two_nodes:
        ray.init(address="local", num_cpus=4, log_to_driver=False, **SETTINGS)
        return None
    # Ray itself does not call a node dead here, whose connections may hang for longer than a run should.
    patient = {"_system_config": {"health_check_failure_threshold": 1000}}
    head = {"num_cpus": 4, "resources": {"first": 1}, **SETTINGS, **patient}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(num_cpus=2, resources={"second": 1}, object_store_memory=10**8)
    ray.init(address=cluster.address, log_to_driver=False)
    return second


def kill_all(raylet: int) -> None:
    """Ends a node's processes at once: the workers cannot say anymore that their raylet is gone."""
    processes = [psutil.Process(raylet), *psutil.Process(raylet).children(recursive=True)]
    for end in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            process.send_signal(end)


def other_ends() -> list[str]:
    """How a run ends that loses nobody: out of time, by an error of its own, and asked to when its time is over."""

    def fail() -> None:
        raise KeyError("its own")

    ends = []
    for run in (threading.Event().wait, fail):
        try:
            watched(run, seconds=1)
        except (TimeoutError, KeyError) as error:
            ends.append(repr(error))
    asked = threading.Event()
    watched(asked.wait, seconds=1, out_of_time=asked.set)
    return [*ends, f"asked: {asked.is_set()}"]


def wait_to_be_killed() -> None:
    """As a stage starts Ray and its actors."""
    cluster.start(SETTINGS | {"num_cpus": 4, "log_to_driver": False}, {"env_vars": {}})
    runner: Any = TaskRunnerV1
    runner = runner.remote()
    ray.get(runner.start.remote({}))
    print("ready", flush=True)
    threading.Event().wait()


def main(fault: str) -> None:
    if fault == "command":
        wait_to_be_killed()
    second = start_ray(two_nodes=fault in ("node", "peer", "silence"))
    runner: Any = TaskRunnerV1
    runner = runner.options(resources={"first": 0.1} if second else {}).remote()  # where the driver is
    pid: Any = ray.get(runner.start.remote({"second": 0.1} if second else {}))
    ends = other_ends() if fault == "words" else []
    before, struck = str(RunMembers().first_loss()), [time.monotonic()]

    gone = threading.Event()

    def run() -> None:
        if fault != "peer":
            ray.get(runner.hang.remote() if fault == "words" else runner.run.remote())
        gone.wait()  # then what Ray Train does, as a collective operation has failed in the ranks that are left
        ray.get(runner.stop.remote())
        raise RuntimeError("Connection closed by peer")

    def strike() -> None:
        time.sleep(0.5)
        struck.append(time.monotonic())
        if fault == "worker":
            os.kill(pid, signal.SIGKILL)
            time.sleep(1)
            ray.kill(runner)  # the end of the rest, which is not the cause
        if fault == "node":
            second.all_processes["raylet"][0].process.kill()
        if fault in ("peer", "silence"):
            kill_all(second.all_processes["raylet"][0].process.pid)
            gone.set()
        if fault == "raylet":
            node: Any = ray._private.worker._global_node
            os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)

    threading.Thread(target=strike).start()
    try:
        watched(run, seconds=60)
    except MemberLostError as error:
        loss = vars(error.loss) | {"pid": pid, "sentence": str(error), "before": before, "ends": ends}
        loss["seconds"] = round(time.monotonic() - struck[-1], 1)  # for a person; no test depends on it
        ray.shutdown()
        print(json.dumps(loss))


main(sys.argv[1])
