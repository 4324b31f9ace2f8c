"""Files in /dev/shm that killed processes of Python have left: shared memory (`psm_*`) and semaphores (`sem.mp-*`)."""

import os
import time
from pathlib import Path

_PATTERNS = ("psm_*", "sem.mp-*")
_HANDOVER = 60.0  # seconds in which a file may be on its way from one process to another, open in neither


def remove_abandoned(folder: Path = Path("/dev/shm"), age: float = _HANDOVER) -> int:
    """Removes files of this user that no living process has open or mapped, and returns how many.

    Args:
        age: seconds since a file's last change below which it is left alone.
    """
    found = [path for pattern in _PATTERNS for path in folder.glob(pattern)]
    mine = {str(path) for path in found if _is_mine_and_older(path, age)}
    abandoned = mine - _in_use(folder) if mine else set()
    for path in abandoned:
        Path(path).unlink(missing_ok=True)
    return len(abandoned)


def _is_mine_and_older(path: Path, age: float) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return status.st_uid == os.getuid() and time.time() - max(status.st_mtime, status.st_ctime) >= age


def _in_use(folder: Path) -> set[str]:
    """The files of a folder that some process has mapped or open; processes of other users cannot be asked."""
    used = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            used |= {line.split(maxsplit=5)[-1] for line in (process / "maps").read_text().splitlines()}
            descriptors = list((process / "fd").iterdir())
        except OSError:  # it has ended meanwhile, or belongs to another user
            continue
        used |= {path for descriptor in descriptors if (path := _target(descriptor))}
    return {path for path in used if path.startswith(f"{folder}/")}


def _target(descriptor: Path) -> str | None:
    try:
        return os.readlink(descriptor)
    except OSError:  # closed meanwhile
        return None
