"""A run on a real Ray whose members are plain actors of verl's names: kills one, and prints what `watched` raises.

`python members_worker.py worker|words|raylet|node`; the last line is JSON. With `command` it waits to be killed itself.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import Any

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

    def hang(self) -> None:
        last_words.leave("no step finished within 3.0 minutes")
        os._exit(70)


def start_ray(two_nodes: bool) -> Any:
    """Starts Ray on this machine. Returns the second of two nodes; None where there is one."""
    if not two_nodes:
        ray.init(address="local", num_cpus=4, log_to_driver=False, **SETTINGS)
        return None
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "resources": {"first": 1}, **SETTINGS})
    second = cluster.add_node(num_cpus=2, resources={"second": 1}, object_store_memory=10**8)
    ray.init(address=cluster.address, log_to_driver=False)
    return second


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
    second = start_ray(two_nodes=fault == "node")
    runner: Any = TaskRunnerV1
    runner = runner.options(resources={"first": 0.1} if second else {}).remote()  # where the driver is
    pid: Any = ray.get(runner.start.remote({"second": 0.1} if second else {}))
    ends = other_ends() if fault == "words" else []
    before, struck = str(RunMembers().first_loss()), [time.monotonic()]

    def strike() -> None:
        time.sleep(0.5)
        struck.append(time.monotonic())
        if fault == "worker":
            os.kill(pid, signal.SIGKILL)
            time.sleep(1)
            ray.kill(runner)  # the end of the rest, which is not the cause
        if second:
            second.all_processes["raylet"][0].process.kill()
        if fault == "raylet":
            node: Any = ray._private.worker._global_node
            os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)

    threading.Thread(target=strike).start()
    try:
        watched(lambda: ray.get(runner.hang.remote() if fault == "words" else runner.run.remote()), seconds=60)
    except MemberLostError as error:
        loss = vars(error.loss) | {"pid": pid, "sentence": str(error), "before": before, "ends": ends}
        loss["seconds"] = round(time.monotonic() - struck[-1], 1)  # for a person; no test depends on it
        ray.shutdown()
        print(json.dumps(loss))


main(sys.argv[1])
