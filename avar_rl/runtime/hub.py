"""Where a model's files are on this machine, whether it was named as a directory or as a model on the hub."""

from pathlib import Path

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.gguf")


def model_directory(model: str, weights: bool = True) -> Path:
    """The local directory of a model; one that is named as on the hub is downloaded where it is not in the cache yet.

    Args:
        model: a directory, or the name of a model on the hub.
        weights: whether its weights are needed; without, only its small files are downloaded.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, ignore_patterns=None if weights else list(WEIGHTS)))
