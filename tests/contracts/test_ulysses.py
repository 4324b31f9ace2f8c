"""Ulysses sequence parallelism on verl's patched Qwen2.5-VL attention: two gloo ranks against one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(world: int, folder: Path) -> dict:
    out = folder / f"{world}.pt"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/numerics'}"}
    ranks = []
    for rank in range(world):
        command = [sys.executable, str(ROOT / "tests/contracts/ulysses_worker.py"), str(rank), str(world)]
        command += [str(folder / f"rendezvous_{world}"), str(out)]
        ranks.append(subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    for rank in ranks:
        _, errors = rank.communicate(timeout=240)
        assert rank.returncode == 0, errors[-4000:]
    return torch.load(out)


@pytest.mark.e2e
def test_two_ranks_equal_one(tmp_path):
    one, two = run(1, tmp_path), run(2, tmp_path)
    assert two["pad"] == 1 and one["pad"] == 0  # 79 tokens, so verl fills up
    assert one["masses"].shape[3] == 4  # all heads
    torch.testing.assert_close(two["masses"], one["masses"], rtol=0, atol=1e-6)
    assert two["gradients"].keys() == one["gradients"].keys()
    for name, expected in one["gradients"].items():
        assert (two["gradients"][name] - expected).norm() <= 1e-4 * expected.norm() + 1e-7, name
