"""recipes/synthesize_tiny.sh for real: what it exports is what a cold start takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools.validate import main as validate

ROOT = Path(__file__).parents[2]


def recipe(script: str, *overrides: str, **knobs: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "AVAR_VENV": str(Path(sys.executable).parents[1]), **knobs}
    command = ["bash", str(ROOT / "recipes" / script), *overrides]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1100)
def test_tiny_recipe_exports_rows_for_the_cold_start(tiny_world, tmp_path):
    knobs = {"OUT": str(tmp_path / "out"), "ROWS": "60", "BASE": str(tiny_world / "base")}
    done = recipe("synthesize_tiny.sh", **knobs)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    data = tmp_path / "out" / "data"
    assert {path.name for path in data.iterdir()} >= {"train.parquet", "val.parquet", "outcomes.jsonl", "report.html"}
    lines = [json.loads(line) for line in (data / "outcomes.jsonl").read_text().splitlines()]
    assert len({line["row"] for line in lines}) == len(lines) == 60
    assert {line["outcome"] for line in lines} == {"exported", "filtered"}
    assert validate([str(data / "train.parquet"), "--model", knobs["BASE"], "--max-length", "256"]) == 0
    assert f"SFT_ROWS={data}/train.parquet" in done.stdout
    again = recipe("synthesize_tiny.sh", **knobs)
    assert again.returncode == 0 and "source: done before" in again.stdout


@pytest.mark.parametrize(
    ("script", "model"), [("synthesize_tiny.sh", "tiny-reason"), ("synthesize_qwen7b.sh", "Qwen3-235B")]
)
def test_a_dry_run_prints_the_checked_recipe(script, model, tmp_path):
    done = recipe(script, DRY_RUN="1", OUT=str(tmp_path / "out"))
    assert done.returncode == 0 and model in done.stdout, done.stderr
    assert not (tmp_path / "out").exists()
    wrong = recipe(script, "filters.nothing=1", DRY_RUN="1", OUT=str(tmp_path / "out"))
    assert wrong.returncode == 2 and "unknown key filters.nothing" in wrong.stderr
