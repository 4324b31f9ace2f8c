"""Checkpoints that are damaged between two starts, a disk that fills up, and a place that cannot be written.

A disk is filled up only where the folder of the runs is a small file system of its own, such as a tmpfs of 1 GB.
"""

import contextlib
import os
import shutil
import time
from pathlib import Path

from avar_rl.export import latest_checkpoint
from benchmarks.faults.cases import wait_for_a_saved_step
from benchmarks.faults.fault import RunFault
from benchmarks.faults.run import Run, kill

_ROOM_LEFT = 1_000_000  # bytes; a checkpoint takes some 10 MB, what is logged until then some kB
_SMALL_DISK = 2_000_000_000  # bytes
_FILL_SECONDS = 60.0


def _filler(run: Run) -> Path:
    return run.folder / "filler"


def _halve_the_newest(run: Run) -> None:
    wait_for_a_saved_step(run, 2)  # so that there is one before

    def harm() -> None:
        kill(run.family())
        run.process.wait()
        newest = max(latest_checkpoint(run.folder / "checkpoints").glob("model_*.pt"))
        os.truncate(newest, newest.stat().st_size // 2)

    run.harm(harm)


def _fill_the_disk(run: Run) -> None:
    wait_for_a_saved_step(run)
    if shutil.disk_usage(run.folder).free > _SMALL_DISK:
        raise RuntimeError(f"{run.folder} is on a disk that is too large to be filled; give --work a tmpfs of 1 GB")
    run.harm(lambda: _fill_until_the_end(run))


def _fill_until_the_end(run: Run) -> None:
    """Takes the room, too, that the training makes by giving up its oldest checkpoint."""
    deadline, size = time.monotonic() + _FILL_SECONDS, 0
    with _filler(run).open("wb") as file:
        while run.process.poll() is None and time.monotonic() < deadline:
            more = shutil.disk_usage(run.folder).free - _ROOM_LEFT
            if more > 0:
                with contextlib.suppress(OSError):  # the training was faster
                    os.posix_fallocate(file.fileno(), size, more)
                    size += more
            time.sleep(0.001)


def _start_on_a_full_disk(run: Run) -> None:
    run.harm(run.process.wait)
    _filler(run).unlink()


def _start_and_see(run: Run) -> None:
    run.harm(lambda: None)


def _of(stage: str, chain: str) -> list[RunFault]:
    nowhere = ("trainer.default_local_dir=/sys/avar",)
    return [
        RunFault(
            "kill -9 all, and the newest checkpoint's model file is cut in half", stage, _halve_the_newest, chain=chain
        ),
        RunFault("the disk fills up", stage, _fill_the_disk, chain=chain),
        RunFault("a start while the disk is full", stage, _start_on_a_full_disk, chain=chain),
        RunFault("a start where nothing can be written", stage, _start_and_see, nowhere, chain),
    ]


FAULTS = [*_of("sft", "named faults"), *_of("grpo", "checkpoints")]
