"""A member of a real GRPO run is killed; `python -m benchmarks.faults` does it to all of them."""

from dataclasses import replace

import pytest

from benchmarks.faults.__main__ import every_fault, row
from benchmarks.faults.fault import measure
from benchmarks.faults.stages import World

STEPS = 4


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_dead_vllm_engine_ends_the_run_with_its_name_and_the_same_command_resumes(tiny_world, tmp_path):
    for name in ("data", "base"):
        (tmp_path / name).symlink_to(tiny_world / name)
    (tmp_path / "sft").symlink_to(tiny_world / "base")
    (fault,) = (fault for fault in every_fault() if fault.name == "kill -9 the vLLM engine core")
    fault = replace(fault, overrides=(*fault.overrides, f"trainer.total_training_steps={STEPS}"))
    outcome = measure(fault, World(tmp_path), tmp_path / "run")
    assert outcome.status == 75, row(outcome)
    assert outcome.sentence.startswith("vLLM's engine EngineCore"), row(outcome)
    assert "of vLLM server vllm_server_0_0 (process " in outcome.sentence and "killed (signal 9)" in outcome.sentence
    resumed = int(outcome.sentence.partition("The same command resumes from step ")[2].split()[0])
    assert resumed >= 2 and resumed % 2 == 0  # a checkpoint every second step; killed after the second
    assert outcome.rerun == f"steps {resumed + 1} to {STEPS}, exit 0" and outcome.left == 0
