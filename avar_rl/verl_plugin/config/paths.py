"""Where a stage reads and writes: absolute paths, and the one place that decides where its logs go.

Left alone, verl's trackers write below the current directory: `tensorboard_log/`, `PROJECT/EXPERIMENT.jsonl`, `wandb/`.
"""

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

# Environment variable: the folder of a run of several stages, which keeps the logs of all of them (recipes/stages.sh).
RUN_FOLDER = "AVAR_RUN"
# And the stage's name in that run, after which its logs are called: a recipe may train twice in one way.
RUN_STAGE = "AVAR_STAGE"
# The variables that verl's trackers and wandb read; Ray workers on other nodes are given them, too.
LOG_VARIABLES = ("VERL_FILE_LOGGER_PATH", "VERL_FILE_LOGGER_ROOT", "TENSORBOARD_DIR", "WANDB_DIR", "SWANLAB_LOG_DIR")

_KEYS = (
    "data.train_files",
    "data.val_files",
    "trainer.default_local_dir",
    "trainer.resume_from_path",
    "trainer.rollout_data_dir",
    "trainer.validation_data_dir",
    "avar.rollouts.dir",
)
_PLUG_INS = ("avar.rewards", "avar.token_weights", "avar.losses")
_NODES = ("model", "actor_rollout_ref.model")
_MODELS = tuple(f"{node}.{key}" for node in _NODES for key in ("path", "lora_adapter_path"))


def make_absolute(config: DictConfig) -> None:
    """Makes the paths of a stage's configuration absolute, in place: its workers may run in another directory.

    A model that is no directory here is taken for a name on the hub and stays as it is.
    """
    for key in _KEYS:
        value = OmegaConf.select(config, key)
        if OmegaConf.is_list(value):
            OmegaConf.update(config, key, [_absolute(path) for path in value])
        elif isinstance(value, str) and value:
            OmegaConf.update(config, key, _absolute(value))
    for key in _MODELS:
        value = OmegaConf.select(config, key)
        if isinstance(value, str) and Path(value).expanduser().is_dir():
            OmegaConf.update(config, key, _absolute(value))
    for kind in _PLUG_INS:
        lines = OmegaConf.select(config, kind)
        for line in lines.values() if isinstance(lines, DictConfig) else ():
            if isinstance(line, DictConfig) and isinstance(line.get("path"), str):
                line.path = _absolute(line.path)


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().resolve())


def prepare_logs(config: DictConfig, stage: str) -> None:
    """Points every tracker to an absolute place, for this process and those that it starts, and makes the folders.

    The run's folder is `AVAR_RUN`, else `trainer.default_local_dir` (absolute, see `make_absolute`). In it,
    `logs/STAGE.metrics.jsonl` holds the metrics of all starts, `tensorboard/STAGE` the event files, `wandb` and
    `swanlog` what those write. A variable that the caller has set (see `LOG_VARIABLES`) stands.

    Args:
        config: the stage's configuration.
        stage: "sft" or "grpo": what the logs are called where no recipe names the stage.
    """
    stage = os.environ.get(RUN_STAGE) or stage
    run = Path(_absolute(os.environ.get(RUN_FOLDER) or config.trainer.default_local_dir))
    chosen = {"TENSORBOARD_DIR": run / "tensorboard" / stage, "WANDB_DIR": run, "SWANLAB_LOG_DIR": run / "swanlog"}
    if not os.environ.get("VERL_FILE_LOGGER_ROOT"):
        chosen["VERL_FILE_LOGGER_PATH"] = run / "logs" / f"{stage}.metrics.jsonl"
    for name in LOG_VARIABLES:
        if path := os.environ.get(name) or str(chosen.get(name, "")):
            os.environ[name] = _absolute(path)
    Path(os.environ["WANDB_DIR"]).mkdir(parents=True, exist_ok=True)  # else wandb takes a temporary folder
    if metrics := os.environ.get("VERL_FILE_LOGGER_PATH"):  # verl opens it without making its folder
        Path(metrics).parent.mkdir(parents=True, exist_ok=True)
