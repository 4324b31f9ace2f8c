"""A run on a real Ray whose members are plain actors of verl's names: kills one, and prints what `watched` raises.

`python members_worker.py worker|words|raylet`; the last line is JSON.
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

from avar_rl.verl_plugin.health import last_words  # noqa: E402
from avar_rl.verl_plugin.health.watcher import MemberLostError, RunMembers, watched  # noqa: E402

remote: Any = ray.remote(num_cpus=0)  # whose results no type checker sees


@remote
class RewardLoopWorker:
    def pid(self) -> int:
        return os.getpid()


@remote
class TaskRunnerV1:
    def start(self) -> int:
        """Starts two workers; one more is ended on purpose. Returns the process of the first."""
        worker: Any = RewardLoopWorker
        self.workers = [worker.options(name=f"reward_loop_worker_{i}").remote() for i in range(2)]
        ended = worker.remote()
        ray.get(ended.pid.remote())
        ray.kill(ended)
        return ray.get(self.workers[0].pid.remote())

    def run(self) -> None:
        threading.Event().wait()

    def hang(self) -> None:
        last_words.leave("no step finished within 3.0 minutes")
        os._exit(70)


def main(fault: str) -> None:
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    runner: Any = TaskRunnerV1
    runner = runner.remote()
    pid = ray.get(runner.start.remote())
    before = str(RunMembers().first_loss())

    def strike() -> None:
        time.sleep(0.5)
        if fault == "worker":
            os.kill(pid, signal.SIGKILL)
            time.sleep(1)
            ray.kill(runner)  # the end of the rest, which is not the cause
        if fault == "raylet":
            node: Any = ray._private.worker._global_node
            os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)

    threading.Thread(target=strike).start()
    try:
        watched(lambda: ray.get(runner.hang.remote() if fault == "words" else runner.run.remote()), seconds=60)
    except MemberLostError as error:
        loss = vars(error.loss) | {"pid": pid, "sentence": str(error), "before": before}
        ray.shutdown()
        print(json.dumps(loss))


main(sys.argv[1])
