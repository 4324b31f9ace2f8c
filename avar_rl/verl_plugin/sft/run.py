"""Cold start: `python -m avar_rl.verl_plugin.sft RECIPE [key=value …]`, verl's SFT trainer with the guided loss.

Starts torchrun by itself where the recipe asks for more than one rank (trainer.n_gpus_per_node, trainer.nnodes); on
several nodes run the same command on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from avar_rl.verl_plugin.config.command_line import parse_arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv, __doc__)
    from avar_rl.verl_plugin.config import environment

    environment.prepare(arguments.profile)
    from omegaconf import OmegaConf

    from avar_rl.verl_plugin.config import preflight, recipe, settings

    try:
        config = recipe.load(arguments.recipe, arguments.overrides, stage="sft")
        ours = settings.parse(settings.SFTSettings, config)
        recipe.check_sft(config)
        if arguments.dry_run:
            print(OmegaConf.to_yaml(config, resolve=True))
            return 0
        preflight.check_inputs(config.data, config.model.path)
    except ValueError as error:
        print(f"avar_rl sft: {error}", file=sys.stderr)
        return 2
    if "RANK" not in os.environ:
        if config.trainer.n_gpus_per_node * config.trainer.nnodes > 1:
            return _launch_ranks(config, argv if argv is not None else sys.argv[1:])
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.setdefault("MASTER_PORT", str(_free_port()))
    from torch.distributed.elastic.multiprocessing.errors import record

    return record(_train)(config, ours)  # torchrun then ends with the traceback of the rank that failed first


def _launch_ranks(config, argv: list[str]) -> int:
    """Checked once here, so that a mistake is one sentence and not a traceback from every rank."""
    nodes = config.trainer.nnodes
    where = ["--standalone"]
    if nodes > 1:
        absent = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
        if absent:
            print(f"avar_rl sft: {nodes} nodes need {', '.join(absent)} in the environment of each", file=sys.stderr)
            return 2
        where = [f"--master_addr={os.environ['MASTER_ADDR']}", f"--master_port={os.environ['MASTER_PORT']}"]
        where += [f"--node_rank={os.environ['NODE_RANK']}"]
    command = [sys.executable, "-m", "torch.distributed.run", *where, f"--nnodes={nodes}"]
    command += [f"--nproc_per_node={config.trainer.n_gpus_per_node}", "-m", "avar_rl.verl_plugin.sft", *argv]
    return subprocess.call(command)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _train(config, ours) -> int:
    from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

    from avar_rl.verl_plugin.sft.trainer import GuidedSFTTrainer

    initialize_global_process_group()
    try:
        GuidedSFTTrainer(config=config, guidance=ours.guidance).fit()
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume from the last checkpoint", file=sys.stderr)
        return 130
    except (OSError, RuntimeError) as error:  # torch.save gives either where the disk is full
        if not _disk_is_full(Path(config.trainer.default_local_dir), error):
            raise
        print(
            f"No space left on device for {config.trainer.default_local_dir}: the checkpoint being saved is "
            "incomplete, the one before it is intact. Free some space and run the same command again to resume.",
            file=sys.stderr,
        )
        return 1
    finally:
        destroy_global_process_group()
    return 0


def _disk_is_full(folder: Path, error: Exception) -> bool:
    return "No space left" in str(error) or (folder.is_dir() and shutil.disk_usage(folder).free < 2**26)


if __name__ == "__main__":
    sys.exit(main())
