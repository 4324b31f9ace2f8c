"""The guard against hangs, in a process of its own: it ends that process."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# The watchdog's clock is ours: a look at it costs nothing, sleeping moves it on. So no test waits.
FAKE_CLOCK = """
import os, sys, threading
from avar_rl.verl_plugin.grpo import watchdog

class Clock:
    now = 0.0
    sleeps = 0
    on_sleep = staticmethod(lambda: None)
    def monotonic(self):
        return self.now
    def sleep(self, seconds):
        self.now += seconds
        self.sleeps += 1
        self.on_sleep()

clock = watchdog.time = Clock()
"""


def run(script: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", FAKE_CLOCK + script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_hang_ends_with_status_70_a_sentence_and_the_stacks():
    done = run("dog = watchdog.Watchdog(minutes=2)\nthreading.Event().wait()")
    assert done.returncode == 70
    assert "no step finished within 2.0 minutes (avar.guard.step_minutes)" in done.stderr
    assert "resume from the last checkpoint" in done.stderr
    assert 'File "<string>"' in done.stderr  # where the main thread hangs


def test_the_reason_is_left_before_the_end_also_where_leaving_it_hangs():
    left = run(
        "dog = watchdog.Watchdog(2, leave_words=lambda words: print(words, flush=True))\nthreading.Event().wait()"
    )
    assert left.returncode == 70 and left.stdout == "no step finished within 2.0 minutes (avar.guard.step_minutes)\n"
    hung = run(
        "watchdog._WORDS_SECONDS = 0.1\n"
        "dog = watchdog.Watchdog(2, leave_words=lambda words: threading.Event().wait())\n"
        "threading.Event().wait()"
    )
    assert hung.returncode == 70


def test_a_run_that_resets_lives_longer_than_the_limit():
    # the limit is 120 s; 5 s a look, reset at every look, over after 100 looks = 500 s
    done = run(
        "finished = threading.Event()\n"
        "def reset():\n"
        "    dog.reset()\n"
        "    if clock.sleeps == 100:\n"
        "        finished.set()\n"
        "        threading.Event().wait()\n"
        "created = threading.Event()\n"
        "clock.on_sleep = lambda: (created.wait(), reset())\n"
        "dog = watchdog.Watchdog(minutes=2)\n"
        "created.set()\n"
        "finished.wait()\n"
        "print('finished at', clock.now)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "finished at 500.0\n", "")


def test_resets_that_stop_are_noticed():
    # reset at the first two looks (5 s, 10 s), so the end comes at 10 + 120 = 130 s, the 26th look
    done = run(
        "created = threading.Event()\n"
        "def look():\n"
        "    created.wait()\n"
        "    print(int(clock.now), flush=True)\n"
        "    if clock.sleeps <= 2:\n"
        "        dog.reset()\n"
        "clock.on_sleep = look\n"
        "dog = watchdog.Watchdog(minutes=2)\n"
        "created.set()\n"
        "threading.Event().wait()\n"
    )
    assert done.returncode == 70 and done.stdout.split()[-1] == "130"


def test_zero_minutes_is_no_watchdog():
    done = run("dog = watchdog.Watchdog(minutes=0)\ndog.reset()\nprint(threading.active_count())")
    assert (done.returncode, done.stdout) == (0, "1\n")
