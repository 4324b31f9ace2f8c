"""The intervention inside real vLLM is that of transformers, under chunked prefill and prefix caching."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools.miniature.model import corpus, save

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("family", "intervention"),
    [
        ("qwen2_vl", "img=1,sys=0.5,mode=logit,layers=1-3"),
        ("qwen2_5_vl", "img=1,sys=0.5,mode=weight"),
        # the layers of its deep stack, and one more
        pytest.param("qwen3_vl", "img=1,sys=0.5,mode=weight,layers=0-2", marks=pytest.mark.long),
    ],
)
def test_vllm_equals_transformers(tiny_world, tmp_path, family, intervention):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    save(tmp_path / family, corpus(tiny_world / "data"), 0, family)
    model, data = str(tmp_path / family), str(tiny_world / "data" / "test.parquet")
    command = [sys.executable, str(Path(__file__).with_name("intervention_worker.py")), model, data, intervention]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tokens"] > 200
    assert found["intervened"] < 1e-4 and found["cached"] < 1e-4
    assert found["plain"] > 0.1  # and it is far from doing nothing
