"""A stage played by a vLLM engine inside Ray, on the CPU with the miniature model: every row is accounted for."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from avar_rl.evaluation.environment import CPU_VARIABLES, VARIABLES

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_engine_of_ray_answers_a_stage(synthesis_world, tiny_world, offline_teacher, tmp_path):
    url, server = offline_teacher(failing=0.0, bad=0.0)
    out, base = tmp_path / "out", tiny_world / "base"
    command = [sys.executable, "-m", "data_tools.synthesis", "recipes/config/synthesis/tiny.yaml", "--out", str(out)]
    command += ["--ray", "local", f"endpoints.offline.base_url={url}", f"stages.reason.model={base}"]
    command += [f"sources.tiny_world.path={synthesis_world}/source.parquet", "sources.tiny_world.rows=4"]
    command += [f"filters.tokenizer={synthesis_world}/tokenizer", "stages.reason.sampling.max_tokens=16"]
    engine = "{max_model_len: 1024, dtype: float32, enforce_eager: true, max_num_seqs: 8}"
    command += [f"stages.reason.ray_engine={{batch_size: 4, engine: {engine}, placement: {{bundles: [{{CPU: 1}}]}}}}"]
    environment = {**os.environ, **VARIABLES, **CPU_VARIABLES, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = [json.loads(line) for line in (out / "outcomes.jsonl").read_text().splitlines()]
    assert len({line["row"] for line in lines}) == 4 and {line["outcome"] for line in lines} <= {"exported", "filtered"}
    calls = (
        sqlite3.connect(out / "journal.sqlite").execute("SELECT stage, model, completion_tokens FROM calls").fetchall()
    )
    reasoned = [tokens for stage, model, tokens in calls if (stage, model) == ("reason", str(base))]
    assert len(reasoned) == 8 and all(0 < tokens <= 16 for tokens in reasoned)
    assert all(how == "ok" for _, how in server.log) and len(server.log) == len(calls) - len(reasoned)
