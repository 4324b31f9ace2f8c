"""What the end of a cold start's ranks gives the command: whose end it was, and its status."""

import signal
from types import SimpleNamespace

from avar_rl.runtime.stopping import INTERRUPTED
from avar_rl.verl_plugin.health.loss import LOST
from avar_rl.verl_plugin.sft.run import first_failure


def end_of(*failures: SimpleNamespace) -> tuple[int, str]:
    end = first_failure(dict(enumerate(failures)))
    assert end is not None
    return end


def failed(exitcode: int, timestamp: int = 0) -> SimpleNamespace:
    return SimpleNamespace(pid=4711, exitcode=exitcode, timestamp=timestamp)


def test_a_rank_that_was_killed_is_named_although_another_failed_before_that_was_seen():
    status, sentence = end_of(failed(1, 5), failed(-signal.SIGKILL, 6))
    assert status == LOST
    assert sentence.startswith("rank 1 of the cold start (process 4711) on node ")
    assert sentence.endswith("lost: killed (signal 9), by hand, by a scheduler or by the kernel for want of memory")


def test_a_request_to_stop_is_no_failure_also_where_torchrun_ended_the_other_rank():
    assert first_failure({0: failed(INTERRUPTED), 1: failed(-signal.SIGTERM)}) is None


def test_the_rank_that_failed_first_is_named():
    assert end_of(failed(1, 6), failed(1, 5)) == (1, "The cold start failed in rank 1, whose error stands above")
