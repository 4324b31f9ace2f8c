"""Checks of a stage's inputs before any worker starts: data files, the model, and whether span masses can be had."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from avar_rl.attention.families import require_supported
from avar_rl.attention.roles import Markup
from avar_rl.runtime.files import count_rows
from avar_rl.verl_plugin.config import model_checks, settings

if TYPE_CHECKING:
    from transformers import ProcessorMixin


def check_files(paths: str | Sequence[str] | None, what: str) -> None:
    """Checks that every data file exists, is parquet and has rows.

    Args:
        paths: a path, several, or None.
        what: the configuration key that they come from, for the message.

    Raises:
        ValueError: a file is missing, unreadable or empty; names the file, and the command that makes one.
    """
    for path in _listed(paths):
        if not Path(path).is_file():
            raise ValueError(f"{what}={path}: no such file; make one with `python -m data_tools.prepare`")
        try:
            rows = count_rows(path)
        except ValueError as error:
            raise ValueError(f"{what}={error}") from error
        if rows == 0:
            raise ValueError(f"{what}={path} has no rows")


def check_model(path: str) -> ProcessorMixin | None:
    """Checks that a model directory has a processor and belongs to a family whose chat markup gives span roles.

    A name on the hub is left to transformers.

    Returns: the processor; None for a name on the hub.

    Raises:
        ValueError: there is no such directory, it is not a whole model, its family is not supported, or its processor
            is not its family's.
    """
    from transformers import AutoConfig, AutoProcessor, AutoTokenizer

    folder = Path(path)
    if not folder.is_dir():
        if path.startswith((".", "/", "~")) or path.count("/") != 1:
            raise ValueError(f"model.path={path}: no such directory")
        return None  # a hub name: transformers downloads it, and fails with its own clear message
    if not (folder / "config.json").is_file():
        raise ValueError(f"model.path={path} has no config.json: not a Hugging Face model directory")
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ValueError(f"model.path={path} has no processor (preprocessor_config.json); copy it from the base model")
    config = AutoConfig.from_pretrained(path)
    require_supported(config.model_type)
    processor: ProcessorMixin = AutoProcessor.from_pretrained(path)
    model_checks.check_processor(path, config, processor)
    Markup.from_tokenizer(AutoTokenizer.from_pretrained(path))
    return processor


def check_family(config: DictConfig, stage: str, model: str) -> None:
    """Checks that a model's family can do what a stage asks of it; needs no data files.

    Args:
        config: the stage's configuration.
        stage: "sft" or "grpo".
        model: a model directory, the stage's own or the one that it will be made from.

    Raises:
        ValueError: see `model_checks.check_ulysses`.
    """
    from transformers import AutoConfig

    if stage == "sft":
        sizes = [config.engine.ulysses_sequence_parallel_size]
    else:
        actor = config.actor_rollout_ref.actor
        sizes = [actor.ulysses_sequence_parallel_size, actor.fsdp_config.ulysses_sequence_parallel_size]
    if max(sizes) > 1 and _needs_masses(config, stage):
        model_checks.check_ulysses(AutoConfig.from_pretrained(model).model_type, max(sizes))


def _needs_masses(config: DictConfig, stage: str) -> bool:
    if stage == "sft":
        return settings.parse(settings.SFTSettings, config).guidance.enabled
    return settings.parse(settings.GRPOSettings, config).needs_masses()


def check_stage(config: DictConfig, stage: str) -> None:
    """Checks the data files and the model of a stage, "sft" or "grpo", against each other.

    Raises:
        ValueError: see `check_files`, `check_model`, `check_family` and `model_checks`.
    """
    data, options = config.data, config.data.get("apply_chat_template_kwargs") or {}
    path = config.model.path if stage == "sft" else config.actor_rollout_ref.model.path
    check_files(data.train_files, "data.train_files")
    check_files(data.val_files, "data.val_files")
    processor = check_model(path)
    if processor is None:
        return  # a hub name, which the recipes' stage `base` makes a directory of
    check_family(config, stage, path)
    files, column = _listed(data.train_files), data.get("prompt_key")
    if stage == "sft":  # whose validation records masses, too
        model_checks.check_turns_add_up(path, processor, options)
        files, column = [*files, *_listed(data.val_files)], data.messages_key
    if _needs_masses(config, stage):
        model_checks.check_system_turns(path, processor, files, column, options)


def _listed(paths: str | Sequence[str] | None) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths or [])
