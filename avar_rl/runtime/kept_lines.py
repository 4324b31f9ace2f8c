"""A file with a JSON object a line that is added to as results come, by one process at a time, and never loses one."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class KeptLines(Generic[T]):
    """What `append` has taken is on the disk when it returns; where a process died in it, the torn end is cut off.

    there: what `read`, given a line and its number from 1, made of each line that the file held when it was opened.
    """

    def __init__(self, path: Path, read: Callable[[bytes, int], T], or_else: str = ""):
        """Opens the file, or begins it.

        Args:
            or_else: ends the sentence for a file that another process has open: what there is to do but to wait.

        Raises:
            ValueError: another process writes to the file, or what `read` raises of a damaged line.
        """
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.there = list(self._whole(read))
        except BlockingIOError as error:
            self.close()
            raise ValueError(f"another process writes to {path}; wait for it{or_else}") from error
        except ValueError:
            self.close()
            raise

    def _whole(self, read: Callable[[bytes, int], T]) -> Iterator[T]:
        """What is made of the lines; an end that is no line is cut off."""
        end = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                yield read(line, number)
                end += len(line)
        if end < os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, end)
        os.lseek(self._descriptor, end, os.SEEK_SET)

    def append(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Adds a line for each value; they are on the disk when this returns. OSError: they cannot be written."""
        lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        rest = memoryview(lines.encode("utf-8", "replace"))  # a lone surrogate, which a file cannot hold
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Gives the file free."""
        os.close(self._descriptor)
