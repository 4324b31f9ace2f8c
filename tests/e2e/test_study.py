"""The smallest study for real: arms of the miniature with shared cold starts, then its page."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.unit.study_recipe import ToyStudy

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(2500)
def test_the_smallest_study_shares_its_cold_start_and_ends_in_a_page(tmp_path):
    """With one seed and one step of GRPO; two arms share everything before it."""
    settings = yaml.safe_load((ROOT / "recipes" / "studies" / "tiny.yaml").read_text())
    settings |= {"seeds": [0], "out": str(tmp_path / "runs"), "results": str(tmp_path / "results")}
    settings["knobs"] |= {"PRETRAIN_STEPS": 2, "SFT_STEPS": 2, "GRPO_STEPS": 1, "EVAL_LIMIT": 8}
    study = tmp_path / "tiny.yaml"
    study.write_text(yaml.safe_dump(settings))
    environment = os.environ | {"STUDY": str(study), "AVAR_VENV": str(Path(sys.executable).parents[1])}
    done = subprocess.run(
        ["bash", str(ROOT / "recipes" / "study_tiny.sh")],
        env=environment, capture_output=True, text=True, timeout=2400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    runs = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results" / "runs").iterdir()}
    assert sorted(runs) == ["guided-0", "plain-0", "unpaid-0"]
    checkpoints = {
        (run, name): model["checkpoint"] for run, one in runs.items() for name, model in one["models"].items()
    }
    assert checkpoints["guided-0", "sft"] == checkpoints["unpaid-0", "sft"] != checkpoints["plain-0", "sft"]
    assert checkpoints["guided-0", "grpo"] != checkpoints["unpaid-0", "grpo"] and ("plain-0", "grpo") not in checkpoints
    assert len(list((tmp_path / "runs" / "shared").iterdir())) == 2
    assert all(stage["processor_seconds"] > 0 for run in runs.values() for stage in run["stages"])
    page = (tmp_path / "results" / "report.md").read_text()
    assert "3 of 3 runs" in page and "| guided, unpaid | sft | 1 |" in page


@pytest.mark.e2e
@pytest.mark.slow
def test_runs_are_tasks_of_the_ray_cluster(tmp_path):
    """A stand-in recipe on a Ray of this machine; the recipes get no RAY_ADDRESS, and SIGTERM reaches them.

    SIGINT is ignored, as in whatever a script starts in the background.
    """
    toy = ToyStudy(tmp_path, arms={"a": {}, "b": {"overrides": ["one"]}})
    hang = toy.mark("hang-sft")
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = toy.start(str(toy.file), RAY_ADDRESS="local")
    finally:
        signal.signal(signal.SIGINT, usual)
    deadline = time.monotonic() + 150
    while not any(line.startswith("sft") for line in toy.ledger("begin")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130 and "the same command goes on" in err, out + err
    (log,) = (tmp_path / "outputs/studies/toy/logs").glob("sft*")
    assert "stage sft stopped with status 130" in log.read_text()
    hang.unlink()
    status, out, err = toy.run(RAY_ADDRESS="local")
    assert status == 0, out + err
    assert toy.ledger() == sorted(["data 0", "sft 1", "grpo", "grpo one", "evaluation", "evaluation"])
    toy.write(arms={"c": {"overrides": ["x"]}}, resources={"gpus": 1000})
    status, _, err = toy.run(RAY_ADDRESS="local")
    assert status == 2 and "resources: a run takes 1000 GPUs and 1 CPUs of one node, and no node of the cluster" in err
