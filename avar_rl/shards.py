"""verl's sharded weights of a checkpoint -> whole weights, as `checkpoint.save_contents` with hf_model writes them.

Every rank saves the part of each tensor that it holds (FSDP2: a DTensor, cut along one dimension). So any checkpoint
can be exported, and a training need not gather a whole model in one rank's memory each time that it saves.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from avar_rl.runtime.files import replacing

_SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")


def merge_shards(checkpoint: Path, out: Path) -> None:
    """Writes the weights of a checkpoint to `out` as one safetensors file, whole or not at all.

    Args:
        checkpoint: the folder with `model_world_size_N_rank_R.pt`. Trusted: these files are unpickled.

    Raises:
        ValueError: there are no such files, one of them is missing, or tensors are cut in an unknown way.
    """
    import torch
    from safetensors.torch import save_file

    logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)  # no process group here, and none needed
    shards = [torch.load(file, map_location="cpu", mmap=True, weights_only=False) for file in _files(checkpoint)]
    whole: dict[str, Any] = {}
    places = set()  # tied weights stand under two names; safetensors holds each once
    for name in list(shards[0]):
        parts = [shard.pop(name) for shard in shards]
        first = getattr(parts[0], "_local_tensor", parts[0])
        place = (first.data_ptr(), first.shape)
        if first.numel() and place in places:
            continue
        places.add(place)
        whole[name] = _whole(name, parts).contiguous()
    with replacing(out) as partial:
        save_file(whole, partial, metadata={"format": "pt"})


def _files(checkpoint: Path) -> list[Path]:
    found = {file: match for file in checkpoint.iterdir() if (match := _SHARD.fullmatch(file.name))}
    if not found:
        raise ValueError(f"{checkpoint} has no weights (no model_world_size_N_rank_R.pt)")
    ranks = int(max(match[1] for match in found.values()))
    files = [checkpoint / f"model_world_size_{ranks}_rank_{rank}.pt" for rank in range(ranks)]
    if absent := [file.name for file in files if file not in found]:
        raise ValueError(
            f"{checkpoint} lacks {', '.join(absent)}: on several nodes, copy every rank's file there first"
        )
    return files


def _whole(name: str, parts: list[Any]) -> Any:
    """The tensor that the ranks' parts are cut from."""
    import torch
    from torch.distributed.tensor import DTensor, Shard

    if not isinstance(parts[0], DTensor):
        return parts[0]
    local, placements = [part._local_tensor for part in parts], parts[0].placements
    if len(placements) == 1 and isinstance(placements[0], Shard):
        return torch.cat(local, dim=placements[0].dim)
    if all(placement.is_replicate() for placement in placements):
        return local[0]
    raise ValueError(f"{name} is cut as {placements}; only one dimension over all ranks can be put together")
