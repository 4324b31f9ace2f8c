"""A member of a real GRPO run is killed; `python -m benchmarks.faults` does it to all of them."""

from pathlib import Path

import pytest

from benchmarks.faults.__main__ import every_fault, row
from benchmarks.faults.chain import train
from benchmarks.faults.stages import World

STEPS = 4


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_dead_vllm_engine_ends_the_run_with_its_name_and_the_same_command_resumes(tiny_world, tmp_path):
    for name in ("data", "base"):
        (tmp_path / name).symlink_to(tiny_world / name)
    (tmp_path / "sft").symlink_to(tiny_world / "base")
    (fault,) = (fault for fault in every_fault() if fault.name == "kill -9 the vLLM engine core")
    work = tmp_path / "run"
    command = [*World(tmp_path).command("grpo", work / "checkpoints"), f"trainer.total_training_steps={STEPS}"]
    (outcome,), status = train([fault], command, work)
    assert outcome.status == 75, row(outcome, Path("/"))
    assert outcome.sentence.startswith("vLLM's engine EngineCore"), row(outcome, Path("/"))
    assert "of vLLM server vllm_server_0_0 (process " in outcome.sentence and "killed (signal 9)" in outcome.sentence
    said = int(outcome.sentence.partition("The same command resumes from step ")[2].split()[0])
    assert said >= 1 and outcome.resumed == said and outcome.left == 0
    assert status == 0
