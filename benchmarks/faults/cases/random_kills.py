"""Ten kill -9 at moments drawn by chance in one training: of all its processes, or of one that is drawn, too.

Checkpoints come with every second step, so that some steps are lost and trained again.
"""

import random
import time
from pathlib import Path

import psutil

from benchmarks.faults.fault import RunFault
from benchmarks.faults.run import Run, kill, title

KILLS = 10
_START_SECONDS = {"sft": 10.0, "grpo": 50.0}  # a start takes a little longer than that to its first step
_STEPS_SECONDS = {"sft": 1.5, "grpo": 3.0}  # two to three steps
_MEMBERS = {
    3: "ray::WorkerDict",
    4: "ray::AgentLoopWorker",
    5: "ray::TaskRunner",
    7: "ray::SimpleStorageUnit",
    9: "raylet/raylet",
    10: "gcs_server",
}
_EARLY = 0.3  # share of the kills that strike before the first step of a start


def random_kill(stage: str, number: int) -> RunFault:
    """The `number`-th kill of a stage, always the same one but for the process."""
    chance = random.Random(f"{stage} {number}")
    early, all_of_it, share = chance.random() < _EARLY, chance.random() < 0.5, chance.random()
    member = ""
    if stage == "grpo":  # with some sixty processes, of which most do nothing: the members are drawn from instead
        member = _MEMBERS.get(number, "")
        early, all_of_it = not member and early, not member

    def strike(run: Run) -> None:
        if early:
            time.sleep(share * _START_SECONDS[stage])
        else:
            run.wait_for_steps()
            time.sleep(share * _STEPS_SECONDS[stage])
        family = run.family()
        victims = family if all_of_it else [run.member(member) if member else chance.choice(family)]
        run.harm(lambda: kill(victims), "" if all_of_it else _name(victims[0]))

    whom, when = "all processes" if all_of_it else "one process", "while it starts" if early else "in training"
    return RunFault(f"random kill -9 {number}: {whom}, {when}", stage, strike, ("trainer.save_freq=2",), "random kills")


def _name(process: psutil.Process) -> str:
    """What a process is, shortly: its title, its module or its program."""
    words = title(process).split() or ["gone already"]
    return words[words.index("-m") + 1] if "-m" in words[:-1] else Path(words[0]).name


FAULTS = [random_kill(stage, number) for stage in ("sft", "grpo") for number in range(1, KILLS + 1)]
