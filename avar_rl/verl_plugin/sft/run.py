"""Cold start: `avar sft RECIPE [key=value …]`, verl's SFT trainer with the guided loss.

Where RAY_ADDRESS names a cluster, the ranks run there (avar_rl/verl_plugin/sft/on_ray.py); else torchrun starts those
of this machine where the recipe asks for more than one (trainer.n_gpus_per_node).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.stopping import INTERRUPTED, Stopped, StopSignals, die_with_parent, leave, say
from avar_rl.verl_plugin import cluster
from avar_rl.verl_plugin.checkpoints import full_disk, tracked_step, where_it_resumes
from avar_rl.verl_plugin.config.command_line import parse_arguments
from avar_rl.verl_plugin.health.loss import Loss, cause_of_exit

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from avar_rl.verl_plugin.config.settings import SFTSettings

DESCRIPTION = (
    "Cold start: supervised fine-tuning with the attention-guided loss, by verl's trainer. Starts its ranks by itself, "
    "on this machine or on the Ray cluster that RAY_ADDRESS names."
)
_LAUNCHED = "AVAR_SFT_LAUNCHED"  # in ranks, the process id of their launcher, which has checked the configuration


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the cold start.

    Returns 0 when done, 1 when it failed, 2 after a user's mistake, 75 where a rank was lost, 130 when interrupted.
    """
    arguments = parse_arguments(argv, "sft", DESCRIPTION)
    if _LAUNCHED in os.environ:
        die_with_parent(parent=int(os.environ[_LAUNCHED]))
    from avar_rl.verl_plugin.config import environment

    environment.prepare(arguments.profile)
    from omegaconf import OmegaConf

    from avar_rl.verl_plugin import resume
    from avar_rl.verl_plugin.config import paths, preflight
    from avar_rl.verl_plugin.watch.metrics_file import keep_until, metrics_path

    try:
        config, ours = checked(arguments.recipe, arguments.overrides)
        if arguments.dry_run:
            print(OmegaConf.to_yaml(config, resolve=True))
            return 0
        if _LAUNCHED not in os.environ:
            cluster.refuse_nodes_without_ray(config.trainer.nnodes)
            preflight.check_stage(config, "sft")
            step = resume.prepare(config, "sft")
            ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
            cluster.refuse_other_ranks(Path(config.trainer.default_local_dir), step, ranks)
            paths.prepare_logs(config, "sft")
            keep_until(metrics_path(config.trainer.project_name, config.trainer.experiment_name), step)
        if "RANK" not in os.environ and cluster.address():
            from avar_rl.verl_plugin.sft import on_ray

            return on_ray.train(config, ours, environment.forwarded())
        if "RANK" not in os.environ and config.trainer.n_gpus_per_node * config.trainer.nnodes > 1:
            return _launch_ranks(config, sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        print(f"avar sft: {error}", file=sys.stderr)
        return 2
    if "RANK" not in os.environ:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.setdefault("MASTER_PORT", str(_free_port()))
    from torch.distributed.elastic.multiprocessing.errors import record

    return record(_train)(config, ours) or 0  # torchrun then ends with the traceback of the rank that failed first


def checked(recipe_path: str, overrides: list[str]) -> tuple[DictConfig, SFTSettings]:
    """A cold start's configuration, composed and checked as far as that needs no files.

    Raises:
        ValueError: one sentence that names the setting at fault.
    """
    from avar_rl.verl_plugin.config import lora, paths, recipe, settings

    config = recipe.load(recipe_path, overrides, stage="sft")
    paths.make_absolute(config)
    ours = settings.parse(settings.SFTSettings, config)
    if _LAUNCHED not in os.environ:
        recipe.check_sft(config)
        lora.check_lora(config.model, rollout=False)
    return config, ours


def _launch_ranks(config: DictConfig, argv: Sequence[str]) -> int:
    """Starts the ranks of this machine by torchrun; what was checked here is not checked again in each."""
    where = ["--standalone", f"--nproc_per_node={config.trainer.n_gpus_per_node}"]
    # torchrun's own handlers would kill the ranks after 30 s; it needs one signal to be named
    where += ["--signals-to-handle=SIGQUIT", "--shutdown-timeout=10"]
    return _torchrun([*where, "-m", "avar_rl.verl_plugin.sft", *argv], config)


def _torchrun(arguments: list[str], config: DictConfig) -> int:
    """torchrun in this process, which a first signal passes on to the ranks and a second one ends with all of them."""
    import psutil
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    def signal_ranks(number: int) -> None:
        for rank in psutil.Process().children():
            rank.send_signal(number)

    def kill_ranks() -> None:
        signal_ranks(signal.SIGKILL)
        leave()

    StopSignals(lambda name: signal_ranks(signal.SIGTERM), kill_ranks).install()
    os.environ[_LAUNCHED] = str(os.getpid())
    # What it tells of the ranks' ends is said here, too, and would come after the sentence of a rank that was stopped.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    try:
        run.run(run.parse_args(arguments))
        return 0
    except ChildFailedError as error:
        if (end := first_failure(error.failures)) is None:
            print(_stopped(config), file=sys.stderr)
            return INTERRUPTED
        status, sentence = end
        resumes = where_it_resumes(Path(config.trainer.default_local_dir))
        print(f"{error}\n{sentence}. {resumes}", file=sys.stderr)
        return status


def first_failure(failures: Mapping[int, Any]) -> tuple[int, str] | None:
    """What the end of ranks gives the command: its status, and a sentence on the rank whose end the others followed.

    Args:
        failures: torchrun's, by rank, with `pid`, `timestamp` and `exitcode` (negative: minus a signal's number).

    Returns: None where a request to stop has ended them.
    """
    here = f"{socket.gethostname()} (this machine)"
    for rank, failure in failures.items():
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # which is torchrun's, to the others
            loss = Loss(f"rank {rank} of the cold start (process {failure.pid})", here, cause_of_exit(failure.exitcode))
            return loss.status, str(loss)
    if INTERRUPTED in {failure.exitcode for failure in failures.values()}:
        return None
    first = min(failures, key=lambda rank: failures[rank].timestamp)
    return 1, f"The cold start failed in rank {first}, whose error stands above"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _train(config: DictConfig, ours: SFTSettings) -> int:
    from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

    from avar_rl.verl_plugin.sft.trainer import GuidedSFTTrainer

    leads = os.environ["RANK"] == "0"
    trainer: GuidedSFTTrainer | None = None
    speaks = leads and _LAUNCHED not in os.environ  # a launcher has the last word, after torch's warnings in the ranks

    def stop(name: str) -> None:
        if trainer is None:
            raise KeyboardInterrupt
        if leads:
            say(f"{name}: this step is finished and its checkpoint saved; a second signal leaves at once")

    signals = StopSignals(stop, leave)
    signals.install()
    initialize_global_process_group()
    status, sentence = 0, ""
    try:
        trainer = GuidedSFTTrainer(config=config, guidance=ours.guidance, stop_requested=lambda: signals.requested)
        trainer.fit()
    except KeyboardInterrupt:
        status, sentence = INTERRUPTED, _stopped(config) if speaks else ""
    except Stopped as stopped:
        status, sentence = INTERRUPTED, str(stopped) if speaks else ""
    except (OSError, RuntimeError) as error:  # torch.save gives either where the disk is full
        folder = Path(config.trainer.default_local_dir)
        full = full_disk(folder, error)
        if not full:
            raise
        print(f"{full} {where_it_resumes(folder)}", file=sys.stderr)
        status = 1
    finally:
        destroy_global_process_group()
    if sentence:
        print(sentence, file=sys.stderr)
    return status


def _stopped(config: DictConfig) -> str:
    """What is said of ranks that a signal has ended."""
    return str(Stopped(tracked_step(Path(config.trainer.default_local_dir)) or 0))
