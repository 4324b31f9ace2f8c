"""The smallest study for real: arms of the miniature with shared cold starts, then its page."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(2500)
def test_the_smallest_study_shares_its_cold_start_and_ends_in_a_page(tmp_path):
    """With one seed and one step of GRPO; two arms share everything before it."""
    settings = yaml.safe_load((ROOT / "recipes" / "studies" / "tiny.yaml").read_text())
    settings |= {"seeds": [0], "out": str(tmp_path / "runs"), "results": str(tmp_path / "results")}
    settings["knobs"] |= {"SFT_STEPS": 2, "GRPO_STEPS": 1, "EVAL_LIMIT": 8}
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
