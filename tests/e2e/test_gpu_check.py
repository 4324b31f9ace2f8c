"""The GPU check in miniature: every part on the CPU, on whatever versions this environment has."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_check import results
from benchmarks.gpu_check.parts import PARTS

ROOT = Path(__file__).parents[2]
# Goals of the card's time and memory, which a CPU cannot answer.
COST = ("time", "peak memory")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu_check") / "out.json"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--miniature", "--limits", "10", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    parts = results.read(out)["parts"]
    assert done.returncode == 0, "\n".join(part.get("error", "") for part in parts.values()) + done.stdout + done.stderr
    return parts


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_part_is_done_and_meets_what_a_cpu_can_meet(found):
    assert {number: part["status"] for number, part in found.items()} == {p.number: "done" for p in PARTS}
    goals = [goal for part in found.values() for goal in part["goals"]]
    for goal in goals:
        of_a_card = any(what in goal["goal"] for what in COST)
        assert goal["met"] == ("not applicable" if of_a_card else "yes"), goal
    assert len([goal for goal in goals if goal["met"] == "yes"]) >= 25


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_packed_attention_is_torchs_own_and_its_log_sum_exp_is_the_natural_one(found):
    assert {found[number]["findings"]["attention"] for number in "3456"} == {"torch_flash_varlen"}
    for how in ("with", "without"):
        fact = found["1"]["findings"][f"varlen, {how} gradients"]
        assert fact["operations"] == ["torch_attn::_varlen_attn -> (4, 70) torch.float32"]
        assert fact["error, natural logarithm"] < 1e-3 < 0.3 < fact["error, base 2"]
