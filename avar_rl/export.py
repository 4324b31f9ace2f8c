"""Checkpoint -> Hugging Face directory: `python -m avar_rl.export CHECKPOINTS OUT --base MODEL [--adapter-only]`.

The ranks' parts of the weights are put together (once, into the checkpoint) and get the base model's dtype; every file
that training does not change (processor, tokenizer, chat template, generation settings) is copied from the base model,
so that the result loads wherever the base model did.

A stage that trained adapters (`model.lora_rank`) has those in its checkpoint instead. They are added to the weights of
the model that the stage started from: MODEL, or where that is another one (the model that the run before this stage
started from), the one that the checkpoint names. `--adapter-only` writes the adapter by itself.
"""

import argparse
import glob
import shutil
import sys
from pathlib import Path
from typing import Any

from avar_rl.adapters import ADAPTER_FOLDER, base_of, copy_adapter, merge_adapter
from avar_rl.runtime.files import replacing
from avar_rl.runtime.hub import WEIGHTS, model_directory
from avar_rl.shards import merge_shards


def latest_checkpoint(checkpoints: Path) -> Path:
    """The folder of the newest complete checkpoint below `checkpoints`, a stage's `trainer.default_local_dir`.

    ValueError: there is none.
    """
    tracker = checkpoints / "latest_checkpointed_iteration.txt"
    if not tracker.is_file():
        raise ValueError(f"{checkpoints} holds no complete checkpoint (no {tracker.name})")
    step = checkpoints / f"global_step_{tracker.read_text().strip()}"
    return step / "actor" if (step / "actor").is_dir() else step


def export(checkpoints: Path, out: Path, base: str, *, adapter_only: bool = False) -> Path:
    """Writes the newest checkpoint as a Hugging Face directory, whole or not at all.

    Args:
        checkpoints: a stage's folder of checkpoints, verl's `trainer.default_local_dir`.
        out: the directory to write; one that is there is replaced.
        base: the model that training started from, a directory or the name of a model on the hub; for a stage of
            adapters any earlier one will do, as long as the model that the stage started from is where it was.
        adapter_only: write the adapter of a LoRA stage, in PEFT's format, instead of whole weights.

    Returns:
        The checkpoint's folder of weights, or of the adapter.

    Raises:
        ValueError: no complete checkpoint, weights that do not match the architecture, an adapter whose model
            is not there any more, or `adapter_only` where there is no adapter.
    """
    checkpoint = latest_checkpoint(checkpoints)
    adapter = checkpoint / ADAPTER_FOLDER
    for stale in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):  # an export that was killed left its weights
        shutil.rmtree(stale, ignore_errors=True)
    if adapter.is_dir():
        origin = model_directory(base)
        started_from = base_of(adapter, origin)
        if adapter_only:
            on_hub = started_from == origin and not Path(base).is_dir()
            copy_adapter(adapter, out, base=base if on_hub else str(started_from.resolve()))
        else:
            _write(merge_adapter(_base_model(started_from), adapter), origin, out)
        return adapter
    if adapter_only:
        raise ValueError(f"{checkpoint} has no adapter: the stage trained whole weights; leave --adapter-only out")
    origin = model_directory(base, weights=False)
    source = _whole_weights(checkpoint)
    _write(_trained_model(source, origin, base), origin, out)
    return source


def _whole_weights(checkpoint: Path) -> Path:
    """The folder with the checkpoint's whole weights, put together if need be."""
    folder = checkpoint / "huggingface"
    if not list(folder.glob("*.safetensors")):
        merge_shards(checkpoint, folder / "model.safetensors")
    return folder


def _trained_model(source: Path, origin: Path, base: str) -> Any:
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(origin)
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        source, config=config, dtype=config.dtype, output_loading_info=True, ignore_mismatched_sizes=True
    )
    model, report = loaded
    wrong = ("missing_keys", "unexpected_keys", "mismatched_keys")
    faults = {name: sorted(keys)[:5] for name, keys in report.items() if keys and name in wrong}
    if faults:
        raise ValueError(f"{source} does not match the architecture of {base}: {faults}")
    return model


def _base_model(origin: Path) -> Any:
    from transformers import AutoConfig, AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(origin, dtype=AutoConfig.from_pretrained(origin).dtype)


def _write(model: Any, origin: Path, out: Path) -> None:
    """The model's weights and configuration, and every other file of the base model."""
    with replacing(out) as partial:
        model.save_pretrained(partial)
        for file in origin.iterdir():
            if file.is_file() and file.name != "config.json" and not any(file.match(pattern) for pattern in WEIGHTS):
                shutil.copyfile(file, partial / file.name)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Newest checkpoint of a training stage -> Hugging Face directory.")
    parser.add_argument("checkpoints", type=Path, help="trainer.default_local_dir of the stage")
    parser.add_argument("out", type=Path, help="directory to write")
    parser.add_argument("--base", required=True, help="model that training started from: directory or hub name")
    parser.add_argument(
        "--adapter-only",
        action="store_true",
        help="of a LoRA stage: write the adapter alone, in PEFT's format",
    )
    arguments = parser.parse_args(argv)
    try:
        source = export(arguments.checkpoints, arguments.out, arguments.base, adapter_only=arguments.adapter_only)
    except (OSError, ValueError) as error:
        print(f"avar export: {error}", file=sys.stderr)
        return 2
    print(f"{source} -> {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
