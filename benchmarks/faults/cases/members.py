"""A member of a GRPO run is killed: kill -9 in mid-training, after the second step, whose checkpoint is saved."""

from benchmarks.faults.fault import RunFault
from benchmarks.faults.run import Run


def _killed(process: str, which: int = 0, *, step: int = 2):
    def inject(run: Run) -> None:
        run.wait_for_step(step)
        run.strike(run.member(process, which))

    return inject


TWO_REWARD_WORKERS = ("reward.num_workers=2",)

FAULTS = [
    RunFault("kill -9 the vLLM engine core", "grpo", _killed("VLLM::EngineCore")),
    RunFault("kill -9 the vLLM server", "grpo", _killed("ray::vLLMHttpServer")),
    RunFault("kill -9 the FSDP worker", "grpo", _killed("ray::WorkerDict")),
    RunFault("kill -9 the only reward worker", "grpo", _killed("ray::RewardLoopWorker")),
    RunFault("kill -9 one of two reward workers", "grpo", _killed("ray::RewardLoopWorker"), TWO_REWARD_WORKERS),
    RunFault("kill -9 one of two agent loop workers", "grpo", _killed("ray::AgentLoopWorker")),
    RunFault("kill -9 the task runner", "grpo", _killed("ray::TaskRunner")),
    RunFault("kill -9 the queue's storage", "grpo", _killed("ray::SimpleStorageUnit")),
    RunFault("kill -9 the raylet", "grpo", _killed("raylet/raylet")),
    RunFault("kill -9 Ray's control store", "grpo", _killed("gcs_server")),
]
