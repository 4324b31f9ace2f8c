"""Nothing that a command has started outlives it, however it ended."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
# Starts a process in a session of its own, and one through another, which then ends; ends as it is told.
COMMAND = """
import subprocess, sys, time
from avar_rl.runtime import reaper
sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
parent = "import subprocess, sys; print(subprocess.Popen(%r).pid, flush=True); sys.stdin.read()" % sleep
reaper.start()
child = subprocess.Popen(sleep, start_new_session=True)
other = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(child.pid, other.stdout.readline(), flush=True)
time.sleep(8)  # in which the reaper looks at least once
other.kill()
print(flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "ended"])
def test_what_a_command_leaves_behind_ends_soon_after_it(kill):
    started = subprocess.Popen(
        [sys.executable, "-c", COMMAND], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdin is not None and started.stdout is not None
    left = [psutil.Process(int(pid)) for pid in started.stdout.readline().split()]
    (reaper,) = [it for it in psutil.Process(started.pid).children() if "avar_rl.runtime.reaper" in it.cmdline()]
    for _ in range(2):  # the end of that line, and the one after the sleep
        started.stdout.readline()
    if kill:
        started.kill()
    else:
        started.stdin.close()
    assert started.wait(60) == (-9 if kill else 0)
    _, alive = psutil.wait_procs([*left, reaper], timeout=60)  # they would sleep for 300 s
    assert alive == []


def test_a_command_whose_end_takes_long_is_not_killed():
    """Python closes its files first, and then ends what torch and Ray have at work."""
    begin, end = "from avar_rl.runtime import reaper; reaper.start()", "reaper._reapers[0].stdin.close(); time.sleep(6)"
    slow = f"import time; {begin}; {end}"
    assert subprocess.run([sys.executable, "-c", slow], cwd=ROOT, timeout=60).returncode == 0
