"""Signals in mid-training, to whomever they may come; a limit in time; the death of who started the stage."""

import os
import signal
import time
from collections.abc import Callable

from benchmarks.faults.cases import wait_for_a_saved_step
from benchmarks.faults.fault import RunFault
from benchmarks.faults.run import Run

_LIMIT = "avar.guard.total_minutes=3"  # more than a start, less than a start and all steps
_NOTICE = "avar.guard.notice_seconds=1"  # less than the rest of a step takes
_INTO_THE_ROLLOUT = 0.5  # seconds after the line of a step, while responses to the next one's prompts are generated
_BETWEEN = 2.5  # seconds from one signal to the next; what comes within two seconds is one signal


def _in_training(harm: Callable[[Run], None]) -> Callable[[Run], None]:
    def strike(run: Run) -> None:
        wait_for_a_saved_step(run)
        run.harm(lambda: harm(run))

    return strike


def _sigterm(run: Run) -> None:
    run.process.send_signal(signal.SIGTERM)


def _ctrl_c(run: Run) -> None:
    os.killpg(run.process.pid, signal.SIGINT)


def _sigterm_twice(run: Run) -> None:
    _sigterm(run)
    time.sleep(_BETWEEN)
    _sigterm(run)


def _sigterm_to_a_rank(run: Run) -> None:
    run.member("avar_rl.verl_plugin.sft", 2).send_signal(signal.SIGTERM)


def _kill(run: Run) -> None:
    run.process.kill()


def _kill_the_attendant(run: Run) -> None:
    run.member("avar_rl.runtime.attend", 1).kill()  # after the shell, which has the name in its command line


def _sigterm_in_mid_rollout(run: Run) -> None:
    run.wait_for_steps(2)  # the first one shows what a step takes
    time.sleep(_INTO_THE_ROLLOUT)
    run.harm(lambda: _sigterm(run))


def _out_of_time(run: Run) -> None:
    run.wait_for_line(f"{_LIMIT} is over")
    run.harm(lambda: None)


def _of_both(stage: str, chain: str) -> list[RunFault]:
    return [
        RunFault("SIGTERM to the command", stage, _in_training(_sigterm), chain=chain),
        RunFault("SIGINT to its process group (Ctrl-C)", stage, _in_training(_ctrl_c), chain=chain),
        RunFault("kill -9 the command", stage, _in_training(_kill), chain=chain),
        RunFault("kill -9 the recipe's shell", stage, _in_training(_kill), chain=chain, in_recipe=True),
    ]


FAULTS = [
    *_of_both("sft", "named faults"),
    RunFault("SIGTERM to a rank", "sft", _in_training(_sigterm_to_a_rank)),
    RunFault("kill -9 what attends to the stage", "sft", _in_training(_kill_the_attendant), in_recipe=True),
    # a training of their own, since steps take seconds
    *_of_both("grpo", "signals"),
    RunFault("two SIGTERMs, 2.5 s apart", "grpo", _in_training(_sigterm_twice), chain="signals"),
    RunFault("SIGTERM in mid-rollout, 1 s of notice", "grpo", _sigterm_in_mid_rollout, (_NOTICE,), "signals"),
    RunFault(
        "SIGTERM in mid-rollout, 1 s of notice, the step before not saved either",
        *("grpo", _sigterm_in_mid_rollout, (_NOTICE, "trainer.save_freq=100"), "signals"),
    ),
    RunFault(f"{_LIMIT} is over", "grpo", _out_of_time, (_LIMIT,), "signals"),
]
