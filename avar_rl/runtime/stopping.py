"""Signals that ask a run to stop, and processes that must not outlive the one that started them."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

# One Ctrl-C or one `scancel` may reach a process several times: directly, and from each of those that pass it on.
SECOND_AFTER = 2.0  # seconds
LINGER = 3.0  # seconds that what a command left behind has for its own end
INTERRUPTED = 130  # exit status of what a signal ended
OUT_OF_TIME = 124  # and of what a limit in time ended, as timeout(1) has it
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


BY_SIGNAL = "a signal"


class Stopped(Exception):
    """Training ended because it was asked to, at the end of a step whose checkpoint is saved.

    step: that step; 0 where none was finished.
    by: what asked, a signal or a limit in time, in words.
    """

    def __init__(self, step: int, by: str = BY_SIGNAL):
        super().__init__(step, by)  # these arguments make it again after a journey through Ray
        self.step, self.by = step, by

    @property
    def status(self) -> int:
        """The exit status that it gives a command."""
        return INTERRUPTED if self.by == BY_SIGNAL else OUT_OF_TIME

    def __str__(self) -> str:
        if self.step == 0:
            return f"stopped by {self.by} before the first step was finished; run the same command again to start over"
        return (
            f"stopped by {self.by} after step {self.step}, whose checkpoint is saved; "
            "run the same command again to go on from there"
        )


class StopSignals:
    """Handlers of SIGTERM and SIGINT: the first is a request to stop in good order, a second one leaves at once.

    Signals within SECOND_AFTER seconds of the first are copies of it.
    """

    def __init__(self, first: Callable[[str], None], second: Callable[[], None]):
        """
        Args:
            first: called once, with the signal's name, between two instructions of the main thread.
            second: called at any later signal.
        """
        self._first, self._second = first, second
        self._since: float | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._since is not None

    def install(self) -> None:
        """Takes over both signals. Again after anything that has set handlers of its own, such as `ray.init`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._first(signal.Signals(number).name)
        elif now - self._since >= SECOND_AFTER:
            self._second()


def is_in_time(notice: float, since_asked: float, since_begun: float, step: float, save: float) -> bool:
    """Whether the step in flight can be finished and saved before the machine goes away. All in seconds.

    Args:
        notice: from the request to stop to the machine's end.
        since_asked, since_begun: since that request; since the step began.
        step, save: that a step, and the saving of a checkpoint, take.
    """
    return max(0.0, step - since_begun) + save <= notice - since_asked


def say(text: str) -> None:
    """A line on standard error, from a signal handler: print() fails there where it interrupts another print()."""
    os.write(sys.stderr.fileno(), f"{text}\n".encode())


def leave() -> None:
    """Ends this process at once, for a second signal."""
    say("left at once by a second signal; run the same command again to go on from the last checkpoint")
    os._exit(INTERRUPTED)


def die_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Has the kernel (Linux) send this process a signal when the one that started it dies, however it dies.

    Args:
        number: the signal.
        parent: the process id that the parent had; this process ends where the parent is gone already.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    if parent is not None and os.getppid() != parent:
        os._exit(INTERRUPTED)


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent dies, so that none is lost from sight."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")
