"""Leftovers in /dev/shm: those of killed processes go, those in use stay."""

import subprocess
import sys
from pathlib import Path

from avar_rl.runtime.shared_memory import remove_abandoned

# A process that makes shared memory and is killed before it can remove it; its resource tracker is not told of it.
ABANDONED = """
import os, signal
from multiprocessing import resource_tracker, shared_memory
resource_tracker.register = lambda *arguments: None
print(shared_memory.SharedMemory(create=True, size=4096).name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_memory_of_a_killed_process_goes_and_that_of_a_living_one_stays():
    from multiprocessing.shared_memory import SharedMemory

    killed = subprocess.run([sys.executable, "-c", ABANDONED], capture_output=True, text=True, timeout=60)
    abandoned, mine = Path("/dev/shm") / killed.stdout.strip(), SharedMemory(create=True, size=4096)
    try:
        assert abandoned.is_file()
        remove_abandoned()  # too young: it might be on its way to another process
        assert abandoned.is_file()
        assert remove_abandoned(age=0.0) >= 1
        assert not abandoned.exists() and (Path("/dev/shm") / mine.name).is_file()
    finally:
        mine.close()
        mine.unlink()


def test_other_files_are_nobodys_business(tmp_path):
    for name in ("psm_1234", "sem.mp-abcd", "sem.other", "nccl-xy"):
        (tmp_path / name).write_bytes(b"x")
    with (tmp_path / "psm_1234").open("rb"):
        assert remove_abandoned(tmp_path, age=0.0) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"psm_1234", "sem.other", "nccl-xy"}
