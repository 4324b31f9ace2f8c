"""Checks of a stage's inputs before any worker starts: files that are missing or empty, models without span support."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from avar_rl.attention.families import require_supported
from avar_rl.attention.roles import Markup


def check_inputs(data: DictConfig, model_path: str) -> None:
    """Checks the data files and the model of a training stage.

    Args:
        data: verl's `data` node, with `train_files` and `val_files` (a path, several, or none).
        model_path: a model directory, or a name on the hub.

    Raises:
        ValueError: see `check_files` and `check_model`.
    """
    check_files(data.train_files, "data.train_files")
    check_files(data.val_files, "data.val_files")
    check_model(model_path)


def check_files(paths: str | Sequence[str] | None, what: str) -> None:
    """Checks that every data file exists, is parquet and has rows.

    Args:
        paths: a path, several, or None.
        what: the configuration key that they come from, for the message.

    Raises:
        ValueError: a file is missing, unreadable or empty; names the file, and the command that makes one.
    """
    import pyarrow.parquet as pq

    for path in [paths] if isinstance(paths, str) else list(paths or []):
        if not Path(path).is_file():
            raise ValueError(f"{what}={path}: no such file; make one with `python -m data_tools.prepare`")
        try:
            rows = pq.ParquetFile(path).metadata.num_rows
        except (OSError, ValueError) as error:
            raise ValueError(f"{what}={path} is not a readable parquet file: {error}") from error
        if rows == 0:
            raise ValueError(f"{what}={path} has no rows")


def check_model(path: str) -> None:
    """Checks that a model directory has a processor and belongs to a family whose chat markup gives span roles.

    A name on the hub is left to transformers.

    Raises:
        ValueError: there is no such directory, it is not a whole model, or its family is not supported.
    """
    from transformers import AutoConfig, AutoProcessor, AutoTokenizer

    folder = Path(path)
    if not folder.is_dir():
        if path.startswith((".", "/", "~")) or path.count("/") != 1:
            raise ValueError(f"model.path={path}: no such directory")
        return  # a hub name: transformers downloads it, and fails with its own clear message
    if not (folder / "config.json").is_file():
        raise ValueError(f"model.path={path} has no config.json: not a Hugging Face model directory")
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ValueError(f"model.path={path} has no processor (preprocessor_config.json); copy it from the base model")
    require_supported(AutoConfig.from_pretrained(path).model_type)
    AutoProcessor.from_pretrained(path)
    Markup.from_tokenizer(AutoTokenizer.from_pretrained(path))
