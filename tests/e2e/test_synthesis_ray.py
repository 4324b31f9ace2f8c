"""The stages on Ray: a pool of actors each, one journal, and the export of a single process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPORTS = ("train.parquet", "val.parquet", "outcomes.jsonl")


def synthesis(world: Path, url: str, out: Path, *more: str, limit: int = 540) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "data_tools.synthesis", "recipes/config/synthesis/tiny.yaml", "--out", str(out)]
    command += [f"endpoints.offline.base_url={url}", "endpoints.offline.timeout_s=60", "export.val_share=0.2"]
    command += [f"sources.tiny_world.path={world}/source.parquet", f"filters.tokenizer={world}/tokenizer", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_gives_what_a_single_process_gives(synthesis_world, offline_teacher, tmp_path):
    url, server = offline_teacher(failing=0.1, retry_after_s=0.02, slow_s=0.1)
    alone = synthesis(synthesis_world, url, tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    calls = len({key for key, _ in server.log})
    server.log.clear()
    # Begun in a single process, finished on Ray: the journal is the same.
    assert synthesis(synthesis_world, url, tmp_path / "ray", f"budget.requests={calls // 4}").returncode == 3
    begun = len(server.log)
    done = synthesis(synthesis_world, url, tmp_path / "ray", "--ray", "local", "stages.reason.workers=2")
    assert done.returncode == 0, done.stderr
    assert begun == calls // 4 < len(server.log)
    answered = [key for key, how in server.log if how in ("ok", "slow")]
    assert len(answered) == len(set(answered)) == calls  # nothing is paid twice
    for name in EXPORTS:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
