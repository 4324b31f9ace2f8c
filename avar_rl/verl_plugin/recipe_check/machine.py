"""What this machine has: cards, memory, disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GIB, MIB = 2**30, 2**20
CARD_VARIABLE = "GPU_MEMORY_GB"  # memory of a card, in 10^9 bytes, where nvidia-smi cannot be asked
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Machine:
    """In bytes. cards: the memory of each card; empty where there is none to be asked.

    card: the memory that is counted on, of the smallest card, or the one in GPU_MEMORY_GB; None where neither is known.
    memory, available: of the host, and what of it is free now.
    """

    cards: tuple[int, ...]
    card: int | None
    memory: int
    available: int


def look(environment: Mapping[str, str] = os.environ) -> Machine:
    """This machine, with the cards that CUDA_VISIBLE_DEVICES leaves. ValueError: GPU_MEMORY_GB is no number."""
    cards = _visible(_cards(), environment.get("CUDA_VISIBLE_DEVICES"))
    stated = environment.get(CARD_VARIABLE) or None
    try:
        assumed = None if stated is None else int(float(stated) * 10**9)
    except ValueError as error:
        raise ValueError(f"{CARD_VARIABLE}={stated} is no number of gigabytes, as 80 is") from error
    memory, available = _host_memory()
    return Machine(cards, min(cards) if cards else assumed, memory, available)


def _cards() -> tuple[int, ...]:
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    if not shutil.which(query[0]):
        return ()
    done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    return tuple(int(line) * MIB for line in done.stdout.split()) if done.returncode == 0 else ()


def _visible(cards: tuple[int, ...], chosen: str | None) -> tuple[int, ...]:
    if chosen is None or not cards:
        return cards
    names = [name for name in chosen.split(",") if name.strip()]
    if all(name.strip().isdigit() and int(name) < len(cards) for name in names):
        return tuple(cards[int(name)] for name in names)
    return cards[: len(names)]  # named by UUID: as many as there are names


def _host_memory() -> tuple[int, int]:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    for file in map(Path, _CGROUPS):  # a container's limit
        limit = file.read_text().strip() if file.is_file() else "max"
        if limit.isdigit():
            total = min(total, int(limit))
    return total, min(available, total)


def free_disk(path: Path) -> int:
    """Bytes free where `path` is or will be. OSError: nothing can be written there."""
    import tempfile

    folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
    with tempfile.TemporaryFile(dir=folder):
        return shutil.disk_usage(folder).free


def used_disk(path: Path) -> int:
    """Bytes of the files below `path`."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())
