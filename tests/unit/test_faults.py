"""The trial of faults: what it reads and prints. The trial itself is `python -m benchmarks.faults`."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.faults.__main__ import every_fault, main, row, said_of
from benchmarks.faults.cases.random_kills import random_kill
from benchmarks.faults.chain import Ending, _resolve
from benchmarks.faults.fault import Outcome, RunFault
from benchmarks.faults.run import Run, kill, lives
from benchmarks.faults.weights import distance


def outcome(sentence: str = "", **more: Any) -> Outcome:
    fault = RunFault("a fault", "sft", lambda run: None)
    return Outcome(fault, more.get("what", ""), (1.25, 3.0), 75, 4, 0, sentence, more.get("resumed"))


def test_every_fault_has_a_name_of_its_own_and_the_random_ones_are_the_same_each_time(capsys):
    names = [(fault.stage, fault.name) for fault in every_fault()]
    assert len(set(names)) == len(names) and {stage for stage, _ in names} == {"sft", "grpo"}
    assert [random_kill("sft", 3).name] == [fault.name for fault in every_fault() if "random kill -9 3:" in fault.name][
        :1
    ]
    assert main(["--list", "--only", "raylet"]) == 0
    assert capsys.readouterr().out == "grpo, named faults: kill -9 the raylet\n"
    assert main(["--only", "no such fault"]) == 2


def test_the_distance_of_two_ends_is_a_share_of_the_way():
    start = {"a": torch.tensor([0.0, 0.0]), "b": torch.tensor([1.0]), "only here": torch.tensor([9.0])}
    one = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([1.5])}
    other = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0])}
    # apart: (0, 4, 0.5), of length sqrt(16.25); the way of `other`: (3, 4, 0), of length 5
    assert distance(one, other, start) == pytest.approx((4.0, 16.25**0.5 / 5))
    assert distance(one, one, start) == (0.0, 0.0)
    assert distance({"a": one["a"]}, {"a": start["a"]}, start) == (3.0, float("inf"))


def test_where_a_start_went_on_is_known_from_the_first_one_that_finishes_a_step():
    first, second, told = outcome("lost"), outcome(), list[Outcome]()
    no_step: Any = SimpleNamespace(lines=[], steps=list)
    _resolve([first], no_step, told.append)
    assert first.resumed is None
    said = [
        (0.0, "avar sft: global_step_6/a.pt is cut off; resuming from the checkpoint of step 4"),
        (0.0, "step 5 | loss 1"),
    ]
    some: Any = SimpleNamespace(lines=said, steps=lambda: [5, 6])
    _resolve([first, second], some, told.append)
    assert [first.resumed, second.resumed] == [4, 4] and told == [first, second]
    assert first.sentence == "lost" and second.sentence == f"(the next start:) {said[0][1].removeprefix('avar sft: ')}"


def test_a_row_has_no_paths_and_no_time_of_a_sentence_that_nobody_said():
    said = outcome("lost a|b. It resumes from step 4 (/w/run/checkpoints/global_step_4).", what="ray::IDLE", resumed=4)
    assert row(said, Path("/w")) == (
        "| a fault (ray::IDLE) | sft | 1.2 | 3.0 | 75 | 0 | 4 | 4 | "
        "lost a\\|b. It resumes from step 4 (…/global_step_4). |"
    )
    assert row(outcome(resumed=3), Path("/w")) == "| a fault | sft |  | 3.0 | 75 | 0 | 4 | 3 |  |"


def test_a_step_that_is_missing_or_there_twice_is_seen():
    steps = list(range(1, 81))
    assert said_of("sft", Ending(0, steps, (0.0, 0.0))) == "exit 0; steps 1 to 80, each once; weights equal bit by bit"
    assert said_of("sft", Ending(0, steps, None)) == "exit 0; steps 1 to 80, each once"
    assert "WRONG" in said_of("sft", Ending(0, steps[:-1], (0.0, 0.0)))
    assert "WRONG" in said_of("sft", Ending(0, [1, *steps], (0.0, 0.0)))


TALKS = "import time; print('(TaskRunner pid=1) avar: step 3 | x'); print('step:4 - a:1', flush=True); time.sleep(60)"


def test_a_run_that_is_killed_is_seen_to_end_with_all_of_its_processes(tmp_path):
    run = Run([sys.executable, "-uc", TALKS], tmp_path)
    run.wait_for_steps(2)
    assert run.steps() == [3, 4] and run.member("import time").pid == run.process.pid
    run.harm(lambda: kill(run.family()))
    assert run.struck is not None and run.struck.step == 4
    assert run.outlast(20) == (-9, False)
    assert run.last_of(run.struck.family)[1] == 0 and not any(lives(process) for process in run.struck.family)
    assert run.last_words()[1] == "step:4 - a:1"


def test_a_process_that_waits_to_be_noticed_is_not_alive():
    import psutil

    child = subprocess.Popen(["true"])
    process = psutil.Process(child.pid)
    while process.status() != psutil.STATUS_ZOMBIE:
        pass
    assert process.is_running() and not lives(process)
    child.wait()
