"""Requests to stop: what counts as a second signal, and which step is finished in time."""

import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from avar_rl.runtime.stopping import INTERRUPTED, OUT_OF_TIME, Stopped, is_in_time

ROOT = Path(__file__).parents[2]
# A clock of ours; signals to itself are handled before the next instruction.
SIGNALS = """
import os, signal
from avar_rl.runtime import stopping

class Clock:
    now = 100.0
    def monotonic(self):
        return self.now

clock = stopping.time = Clock()
signals = stopping.StopSignals(lambda name: stopping.say(f"first {name}"), stopping.leave)
signals.install()
assert not signals.requested
os.kill(os.getpid(), signal.SIGINT)
assert signals.requested
clock.now = 101.9
os.kill(os.getpid(), signal.SIGTERM)
stopping.say("a copy of it")
clock.now = 102.0
os.kill(os.getpid(), signal.SIGTERM)
stopping.say("not reached")
"""


def test_signals_of_two_seconds_are_one_and_a_later_one_leaves_at_once():
    done = subprocess.run([sys.executable, "-c", SIGNALS], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    first, copy, last = done.stderr.splitlines()
    assert (first, copy) == ("first SIGINT", "a copy of it") and last.startswith("left at once by a second signal")


@pytest.mark.parametrize(
    ("notice", "since_asked", "since_begun", "step", "save", "expected"),
    [
        (120, 0, 30, 100, 50, True),  # 70 s of the step and 50 s of saving are 120
        (120, 1, 30, 100, 50, False),  # … of which one is over
        (120, 0, 500, 100, 50, True),  # it takes longer than the last; any moment now
        (120, 90, 500, 100, 50, False),
        (120, 0, 10, float("inf"), 0, False),  # the first step: nobody knows
    ],
)
def test_a_step_is_finished_where_it_is_saved_in_time(notice, since_asked, since_begun, step, save, expected):
    assert is_in_time(notice, since_asked, since_begun, step, save) == expected


def test_the_sentence_survives_rays_journey():
    stopped = pickle.loads(pickle.dumps(Stopped(17)))
    assert stopped.status == INTERRUPTED and str(stopped) == (
        "stopped by a signal after step 17, whose checkpoint is saved; run the same command again to go on from there"
    )
    assert "before the first step" in str(Stopped(0))
    late = pickle.loads(pickle.dumps(Stopped(3, "avar.guard.total_minutes=5")))
    assert late.status == OUT_OF_TIME and str(late).startswith("stopped by avar.guard.total_minutes=5 after step 3, ")


def test_a_process_that_is_to_die_with_its_parent_ends_where_that_is_gone_already():
    code = "from avar_rl.runtime.stopping import die_with_parent; die_with_parent(parent=1); print('lives')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
