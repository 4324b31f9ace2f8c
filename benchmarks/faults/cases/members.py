"""A member of a training is killed (kill -9) in mid-training, after a new checkpoint."""

from benchmarks.faults.cases import wait_for_a_saved_step
from benchmarks.faults.fault import RunFault
from benchmarks.faults.run import Run


def _killed(process: str, which: int = 0):
    def strike(run: Run) -> None:
        wait_for_a_saved_step(run)
        run.harm(run.member(process, which).kill)

    return strike


TWO_REWARD_WORKERS = ("reward.num_workers=2",)
_RANK = "avar_rl.verl_plugin.sft"  # of the three processes of that name, the first is the command, the others its ranks

FAULTS = [
    RunFault("kill -9 the vLLM engine core", "grpo", _killed("VLLM::EngineCore")),
    RunFault("kill -9 the vLLM server", "grpo", _killed("ray::vLLMHttpServer")),
    RunFault("kill -9 the FSDP worker", "grpo", _killed("ray::WorkerDict")),
    RunFault("kill -9 one of two reward workers", "grpo", _killed("ray::RewardLoopWorker"), TWO_REWARD_WORKERS),
    RunFault("kill -9 one of two agent loop workers", "grpo", _killed("ray::AgentLoopWorker")),
    RunFault("kill -9 the task runner", "grpo", _killed("ray::TaskRunner")),
    RunFault("kill -9 the queue's storage", "grpo", _killed("ray::SimpleStorageUnit")),
    RunFault("kill -9 the raylet", "grpo", _killed("raylet/raylet")),
    RunFault("kill -9 Ray's control store", "grpo", _killed("gcs_server")),
    RunFault("kill -9 rank 0", "sft", _killed(_RANK, 1)),
    RunFault("kill -9 rank 1", "sft", _killed(_RANK, 2)),
]
