"""The faults, a module each kind: every module here has a list `FAULTS`."""

import time

from benchmarks.faults.run import Run


def wait_for_a_saved_step(run: Run, count: int = 1) -> None:
    """Waits until this start has saved a checkpoint, or `count` of them, and is in the midst of a later step."""
    run.wait_for_steps(count)
    time.sleep(1)
