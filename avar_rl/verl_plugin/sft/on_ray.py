"""The ranks of a cold start on the cluster that RAY_ADDRESS names, by Ray Train; each does what torchrun's ranks do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from avar_rl.verl_plugin import cluster

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

    try:
        cluster.start({}, {"env_vars": variables})
        cluster.wait_for_devices(config.trainer.nnodes, config.trainer.n_gpus_per_node)
        return _trainer(config, ours).fit().return_value or 0
    except cluster.CannotJoinError as error:
        print(f"avar sft: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume from the last checkpoint", file=sys.stderr)
        return 130
    except TrainingFailedError as error:
        print(f"{error}\n\n{_first_failure(error)}; run the same command again to resume", file=sys.stderr)
        return 1
    finally:
        ray.shutdown()


def _trainer(config: DictConfig, ours: SFTSettings) -> Any:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from avar_rl.verl_plugin.sft.run import train_rank

    device = config.trainer.device
    return TorchTrainer(
        train_rank,
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
