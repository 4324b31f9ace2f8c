"""The ranks of a cold start on the cluster that RAY_ADDRESS names, by Ray Train; each does what torchrun's ranks do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.stopping import INTERRUPTED, Stopped, StopSignals, leave
from avar_rl.verl_plugin import cluster, stop_request

# For the ranks' processes to start; a node that reads the stack for the first time takes longer than Ray Train's 60 s.
_START_SECONDS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600"}

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from avar_rl.verl_plugin.config.settings import SFTSettings


def train(config: DictConfig, ours: SFTSettings, variables: dict[str, str]) -> int:
    """Trains on `trainer.nnodes` nodes with `trainer.n_gpus_per_node` devices each, and leaves the cluster.

    Args:
        config, ours: a checked cold start.
        variables: environment variables that every rank gets.

    Returns: an exit status, as `avar_rl.verl_plugin.sft.run.main` does.
    """
    import ray
    from ray.train import TrainingFailedError

    from avar_rl.verl_plugin.checkpoints import where_it_resumes
    from avar_rl.verl_plugin.health.watcher import MemberLostError, watched

    os.environ |= {name: seconds for name, seconds in _START_SECONDS.items() if name not in os.environ}
    signals = StopSignals(stop_request.on_signal, leave)
    signals.install()
    try:
        cluster.start({}, {"env_vars": variables})
        signals.install()  # ray.init has put a handler of its own in place
        cluster.wait_for_devices(config.trainer.nnodes, config.trainer.n_gpus_per_node)
        # It calls in a thread, which is needed here, too: Ray Train would take over SIGINT in this one.
        stopped_at = watched(_trainer(config, ours).fit).return_value
        status, sentence = (0, "") if stopped_at is None else (INTERRUPTED, str(Stopped(stopped_at)))
    except cluster.CannotJoinError as error:
        status, sentence = 2, f"avar sft: {error}"
    except KeyboardInterrupt:
        status, sentence = INTERRUPTED, "interrupted; run the same command again to resume from the last checkpoint"
    except MemberLostError as error:
        status = error.loss.status
        sentence = f"{error}. {where_it_resumes(Path(config.trainer.default_local_dir))}"
    except TrainingFailedError as error:
        print(error, file=sys.stderr)
        status, sentence = 1, f"{_first_failure(error)}; run the same command again to resume"
    finally:
        ray.shutdown()
    if sentence:
        print(sentence, file=sys.stderr)  # the last line: the ranks' own were passed on before
    return status


def _train_rank(stage: dict[str, Any]) -> int | None:
    """Trains as one rank of the process group that Ray Train made.

    Args:
        stage: `config` and `ours`, as `avar_rl.verl_plugin.sft.run.checked` returns them.

    Returns: the step after which a signal to the driver ended the training; None where it is done.
    """
    from avar_rl.verl_plugin.sft.trainer import GuidedSFTTrainer

    trainer = GuidedSFTTrainer(stage["config"], stage["ours"].guidance, stop_requested=stop_request.is_made)
    stop_request.say_training_has_begun()
    try:
        trainer.fit()
    except Stopped as stopped:
        return stopped.step
    return None


def _trainer(config: DictConfig, ours: SFTSettings) -> Any:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    device = config.trainer.device
    return TorchTrainer(
        _train_rank,
        train_loop_config={"config": config, "ours": ours},
        # Ray counts devices as GPUs, also those of the CPU profile, as verl does for GRPO.
        scaling_config=ScalingConfig(
            num_workers=config.trainer.nnodes * config.trainer.n_gpus_per_node,
            use_gpu=True,
            resources_per_worker={"CPU": 1, "GPU": 1},
        ),
        torch_config=TorchConfig(backend="gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"),
        # Ray Train refuses a folder that some node does not share, which the checkpoints need as well.
        run_config=RunConfig(name="ray_train", storage_path=config.trainer.default_local_dir),
    )


def _first_failure(error: Any) -> str:
    """A sentence on the rank that failed first, by Ray Train's account."""
    failures = getattr(error, "worker_failures", None)
    if not failures:
        return f"the cause: {str(error).splitlines()[-1]}"
    rank, cause = next(iter(failures.items()))
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [repr(cause)]
    return f"rank {rank} of the cold start failed ({type(cause).__name__}: {lines[-1]})"
