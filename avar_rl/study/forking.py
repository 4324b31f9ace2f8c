"""A run's folder that starts where the folder of shared stages ends: linked where files are large, else copied."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from avar_rl.runtime.files import replacing, write_json

LINKED_FROM = 1 << 20  # bytes; smaller files are copied, as logs and lists are what a later stage may add to
_START = ".start.json"


def fork(start: Path, out: Path) -> None:
    """Makes `out` of what is in `start`, whole or not at all; nothing where `out` is there already.

    Files from LINKED_FROM bytes on are hard links, where the file system has them. Files that say which command a stage
    was run with say it for `out`. Times of change are kept, as they tell a model that was evaluated before.
    """
    if (out / "stages").is_dir():
        return
    linked: dict[str, list[int]] = {}
    with replacing(out) as partial:
        for folder, folders, names in os.walk(start):
            place = partial / os.path.relpath(folder, start)
            place.mkdir(parents=True, exist_ok=True)
            for name in [*names, *(one for one in folders if Path(folder, one).is_symlink())]:
                source = Path(folder, name)
                if source.parent == start and name in (".lock", _START):
                    continue
                if _take_over(source, place / name):
                    linked[str(source.relative_to(start))] = _stamp(source)
        for done_file in (partial / "stages").iterdir():
            _readdress(done_file, start, out)
        write_json(partial / _START, {"start": str(start), "linked": linked})


def written_to(out: Path) -> list[str]:
    """Linked files of the shared stages behind `out` that were changed in place since it was forked."""
    record = out / _START
    if not record.is_file():
        return []
    said = json.loads(record.read_text())
    start = Path(said["start"])
    return [str(start / name) for name, stamp in said["linked"].items() if _stamp(start / name) != stamp]


def _take_over(source: Path, target: Path) -> bool:
    """Whether the file was linked."""
    if not source.is_symlink() and source.stat().st_size >= LINKED_FROM:
        try:
            os.link(source, target)
            return True
        except OSError:  # a file system without hard links: a copy is as good, and takes space
            target.unlink(missing_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)
    return False


def _readdress(done_file: Path, start: Path, out: Path) -> None:
    times = done_file.stat()
    done_file.write_text(done_file.read_text().replace(str(start), str(out)))
    os.utime(done_file, ns=(times.st_atime_ns, times.st_mtime_ns))


def _stamp(path: Path) -> list[int]:
    """Bytes and time of change in ns; [] where the file is gone."""
    if not path.exists():
        return []
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
