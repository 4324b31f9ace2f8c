"""Checkpoint -> Hugging Face directory: `python -m avar_rl.export CHECKPOINTS OUT --base MODEL`.

The ranks' parts of the weights are put together (once, into the checkpoint) and get the base model's dtype; every file
that training does not change (processor, tokenizer, chat template, generation settings) is copied from the base model,
so that the result loads wherever the base model did.
"""

import argparse
import glob
import shutil
import sys
from pathlib import Path
from typing import Any

from avar_rl.runtime.files import replacing
from avar_rl.shards import merge_shards

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.gguf")


def latest_weights(checkpoints: Path) -> Path:
    """The folder with the whole weights of the newest complete checkpoint below `checkpoints`, put together if need be.

    ValueError: there is none, or a part of its weights is missing.
    """
    tracker = checkpoints / "latest_checkpointed_iteration.txt"
    if not tracker.is_file():
        raise ValueError(f"{checkpoints} holds no complete checkpoint (no {tracker.name})")
    step = checkpoints / f"global_step_{tracker.read_text().strip()}"
    checkpoint = step / "actor" if (step / "actor").is_dir() else step
    folder = checkpoint / "huggingface"
    if not list(folder.glob("*.safetensors")):
        merge_shards(checkpoint, folder / "model.safetensors")
    return folder


def base_directory(base: str) -> Path:
    """The local directory of a model, downloaded from the hub where `base` is a hub name."""
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(base, ignore_patterns=list(WEIGHTS)))


def export(checkpoints: Path, out: Path, base: str) -> Path:
    """Writes the newest checkpoint as a Hugging Face directory, whole or not at all.

    Args:
        checkpoints: a stage's folder of checkpoints, verl's `trainer.default_local_dir`.
        out: the directory to write; one that is there is replaced.
        base: the model that training started from, a directory or the name of a model on the hub.

    Returns:
        The checkpoint's folder of weights.

    Raises:
        ValueError: no complete checkpoint, or weights that do not match the architecture.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    source, origin = latest_weights(checkpoints), base_directory(base)
    config = AutoConfig.from_pretrained(origin)
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        source, config=config, dtype=config.dtype, output_loading_info=True, ignore_mismatched_sizes=True
    )
    model, report = loaded
    wrong = ("missing_keys", "unexpected_keys", "mismatched_keys")
    faults = {name: sorted(keys)[:5] for name, keys in report.items() if keys and name in wrong}
    if faults:
        raise ValueError(f"{source} does not match the architecture of {base}: {faults}")
    for stale in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):  # an export that was killed left its weights
        shutil.rmtree(stale, ignore_errors=True)
    with replacing(out) as partial:
        model.save_pretrained(partial)
        for file in origin.iterdir():
            if file.is_file() and file.name != "config.json" and not any(file.match(pattern) for pattern in WEIGHTS):
                shutil.copyfile(file, partial / file.name)
    return source


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Newest checkpoint of a training stage -> Hugging Face directory.")
    parser.add_argument("checkpoints", type=Path, help="trainer.default_local_dir of the stage")
    parser.add_argument("out", type=Path, help="directory to write")
    parser.add_argument("--base", required=True, help="model that training started from: directory or hub name")
    arguments = parser.parse_args(argv)
    try:
        source = export(arguments.checkpoints, arguments.out, arguments.base)
    except (OSError, ValueError) as error:
        print(f"avar export: {error}", file=sys.stderr)
        return 2
    print(f"{source} -> {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
