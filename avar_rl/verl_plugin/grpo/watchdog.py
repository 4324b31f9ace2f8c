"""A wall-clock guard: long runs hang more often than they crash (a dead weight receiver waits for ever, for one)."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

_WORDS_SECONDS = 5.0


class Watchdog:
    """Ends the process, with the stacks of all threads, when `reset` was not called for `minutes` (0: never).

    Ending is by os._exit: a thread that hangs in native code answers nothing gentler. Checkpoints are untouched, so
    the run resumes from the last one. `leave_words` is given the reason first, and some seconds to pass it on.
    """

    def __init__(
        self, minutes: float, poll_seconds: float = 5.0, leave_words: Callable[[str], None] = lambda words: None
    ):
        self._limit = minutes * 60
        self._leave_words = leave_words
        self._deadline = time.monotonic() + self._limit
        self._poll = poll_seconds
        if minutes > 0:
            threading.Thread(target=self._watch, name="avar-watchdog", daemon=True).start()

    def reset(self) -> None:
        """Starts the time anew: a step has begun."""
        self._deadline = time.monotonic() + self._limit

    def _watch(self) -> None:
        while time.monotonic() < self._deadline:
            time.sleep(self._poll)
        words = f"no step finished within {self._limit / 60:.1f} minutes (avar.guard.step_minutes)"
        print(
            f"{words}: the run hangs and is stopped; its threads follow. Run the same command again to resume from the "
            "last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(all_threads=True)
        leaving = threading.Thread(target=self._leave_words, args=[words], daemon=True)
        leaving.start()
        leaving.join(_WORDS_SECONDS)
        os._exit(70)
