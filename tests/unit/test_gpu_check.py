"""The frame of the GPU check: goals, the file of results, parts that fail or hang, mistakes, stand-ins."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check import parts, results, tables
from benchmarks.gpu_check.parts import PARTS, run_apart

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path):
    """A file of results in which part 1 has begun."""
    found = results.empty()
    results.begin(found, "1", title="kernels", miniature=True, commit="c", begun="2026-01-01")
    results.write(tmp_path / "out.json", found)
    return tmp_path / "out.json"


def goals(file, part="1"):
    return [(goal["measured"], goal["met"]) for goal in results.read(file)["parts"][part]["goals"]]


def test_a_goal_is_met_missed_or_not_applicable(file):
    findings = results.PartFindings(file, "1")
    for measured in (1.03, 1.0301, math.nan, None):
        findings.at_most("time", 1.03, measured)
    findings.at_most("time on a CPU", 1.03, 2.0, applies=False)
    findings.holds("bits", True)
    findings.holds("bits", False)
    found = goals(file)
    assert found[:2] == [(1.03, "yes"), (1.0301, "no")] and found[2][1] == "no"
    assert found[3:] == [(None, "not applicable"), (2.0, "not applicable"), ("yes", "yes"), ("no", "no")]


@pytest.mark.parametrize(
    ("status", "met", "whole"), [("done", True, True), ("done", False, False), ("failed", True, False)]
)
def test_the_check_is_complete_where_all_is_done_and_nothing_missed(file, status, met, whole):
    findings = results.PartFindings(file, "1")
    findings.holds("bits", met)
    findings.holds("not here", False, applies=False)
    findings.status(status)
    assert results.complete(results.read(file)) is whole


def test_a_part_that_begins_anew_forgets_itself_and_nothing_else(file):
    results.PartFindings(file, "1").holds("bits", True)
    found = results.read(file)
    results.begin(found, "3")
    results.begin(found, "2")
    assert list(found["parts"]) == ["1", "2", "3"] and len(found["parts"]["1"]["goals"]) == 1
    results.begin(found, "1")
    assert found["parts"]["1"] == {"status": "running", "goals": [], "findings": {}}


def test_the_table_in_markdown(file):
    findings = results.PartFindings(file, "1")
    findings.note("versions", {"card": "NVIDIA H100", "driver": "580", "torch": "2.11.0"})
    findings.at_most("time", 1.03, 1.0123456)
    findings.status("timed out", seconds=60, error="stopped at its limit of 60 s")
    found = results.read(file)
    assert tables.markdown(found).startswith("Miniature on a CPU")
    found["parts"]["1"]["miniature"] = False
    lines = tables.markdown(found).splitlines()
    assert lines[0] == "NVIDIA H100, driver 580, torch 2.11.0."
    assert "| 1 | time | ≤ 1.03 | 1.012 | yes |" in lines
    assert "| 1 | kernels: all of it | done | timed out | no |" in lines


MISTAKES = {
    "": "--out FILE.json names the file of results",
    "--out {tmp}/none/out.json": "there is no folder .*none",
    "--out {tmp}/other.json": "other.json holds no results of the check",
    "--out {tmp}/text.json": "text.json cannot be read as results",
    "--out {tmp}/out.json --parts 1,7": "there is no part '7'; choose from 1,2,3,4,5,6",
    "--table {tmp}/none.json": "none.json cannot be read as results",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_are_a_sentence_and_2(arguments, tmp_path, capsys):
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "text.json").write_text("no json")
    assert gpu_check.main(arguments.format(tmp=tmp_path).split()) == 2
    said = capsys.readouterr().err
    assert re.search(MISTAKES[arguments], said) and said.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def running(pid: str) -> bool:
    """Whether there is such a process, and it is not a dead one that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_gone(pids: list[str]) -> None:
    """The kernel takes a moment to end what was killed."""
    until = time.monotonic() + 60
    while left := [pid for pid in pids if running(pid)]:
        assert time.monotonic() < until, left
        time.sleep(0.02)


def test_without_a_card_a_part_says_so_and_ends_with_2(file, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert run_apart(PARTS[0], file, results.Setting("cuda", tmp_path), 10.0) == parts.NO_DEVICE
    assert "no CUDA device: --miniature" in results.read(file)["parts"]["1"]["error"]


def test_a_part_that_fails_is_recorded_with_its_error(file, tmp_path):
    found = results.read(file)
    results.begin(found, "2")
    results.write(file, found)
    without_interpreter = replace(PARTS[1], interprets=False)
    assert run_apart(without_interpreter, file, results.Setting("cpu", tmp_path), 10.0) == 0
    part = results.read(file)["parts"]["2"]
    assert part["status"] == "failed" and "needs Triton's interpreter" in part["error"].splitlines()[-1]
    assert not results.complete(results.read(file))


def test_a_part_that_hangs_is_stopped_at_its_limit_with_all_it_started(file, tmp_path, monkeypatch):
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/bash\nsleep 600 &\necho $$ $! >{tmp_path}/pids\necho hangs\nwait\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    run_apart(replace(PARTS[0], seconds=5), file, results.Setting("cpu", tmp_path), 1.0)
    part = results.read(file)["parts"]["1"]
    assert part["status"] == "timed out" and part["error"] == "stopped at its limit of 5 s\nhangs"
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert_gone(pids)


def test_a_check_that_is_ended_keeps_what_it_has_and_leaves_nothing_behind(file):
    results.PartFindings(file, "1").status("done", seconds=1)
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--miniature", "--out", str(file), "--parts", "2"]
    check = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert check.stdout and check.stdout.readline().startswith("part 2")
    while not (children := Path(f"/proc/{check.pid}/task/{check.pid}/children").read_text().split()):
        assert check.poll() is None
        time.sleep(0.01)
    check.send_signal(signal.SIGTERM)
    assert check.wait(60) == 143
    found = results.read(file)["parts"]
    assert found["1"]["status"] == "done" and found["2"]["status"] == "running"
    assert_gone(children)


STAND_INS = """
import json, sys
from benchmarks.gpu_check import stand_ins
stand_ins.ABSENT = ("no_such_package", "a_folder", "json")
found = stand_ins.install()
import a_folder, no_such_package.deep.inside as inside
import no_such_package

@no_such_package.remote
def plain(): return 1

@no_such_package.remote(num_cpus=1)
def with_arguments(): return 2

class Below(inside.Base):
    field: list[no_such_package.Reference]

try:
    no_such_package.init()
except RuntimeError as error:
    refused = str(error)
print(json.dumps([found, plain(), with_arguments(), refused, hasattr(inside, "__wrapped__")]))
"""


def test_stand_ins_can_be_imported_and_named_but_not_used(tmp_path):
    (tmp_path / "a_folder").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", STAND_INS],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found, plain, with_arguments, refused, wrapped = json.loads(done.stdout)
    assert found == ["no_such_package", "a_folder"] and (plain, with_arguments, wrapped) == (1, 2, False)
    assert refused.startswith("no_such_package.init is a stand-in for a package that is not installed")


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text().lower().replace("_", "-")
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE))


def test_the_bare_machine_gets_the_versions_of_the_locks():
    wanted, lock = pins("gpu_check.txt") | pins("gpu_check_bare.txt"), pins("cpu.lock")
    assert {name for name, version in wanted.items() if lock[name] != version} == {"transformers", "torchvision"}
    assert {name for name, version in wanted.items() if pins("gpu.lock")[name] != version} == set()
    assert not set(wanted) & {"torch", "triton", "vllm", "ray", "wandb", "datasets"}


def test_the_settings_for_a_card_compose(tmp_path):
    engine = pytest.importorskip("benchmarks.gpu_check.engine")
    from benchmarks.gpu_check.adapters import OVERRIDES

    card, cpu = (engine.compose(results.Setting(device, tmp_path), OVERRIDES) for device in ("cuda", "cpu"))
    assert (card.trainer.device, cpu.trainer.device) == ("cuda", "cpu")
    assert card.model.use_fused_kernels and cpu.model.use_fused_kernels and card.model.lora_rank == 16
    assert card.engine.mixed_precision == cpu.engine.mixed_precision


def test_the_models_for_a_card_can_be_built():
    """On no device: 7B width, of parts 3, 4 and 6, and the whole language model of part 5."""
    torch = pytest.importorskip("torch")
    from transformers import Qwen2_5_VLForConditionalGeneration

    from benchmarks import gpu
    from benchmarks.gpu_check import small_qwen
    from data_tools.miniature.model import make_tokenizer

    config = small_qwen.config(make_tokenizer(["How many red shapes?"]), small_qwen.WIDE)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    # A layer: q and o 2 x 3584², k and v 2 x 3584 x 512, their biases 3584 + 2 x 512, SwiGLU 3 x 3584 x 18944, 2 norms.
    layer = 2 * 3584**2 + 2 * 3584 * 512 + 3584 + 2 * 512 + 3 * 3584 * 18944 + 2 * 3584
    assert sum(p.numel() for p in model.model.language_model.parameters()) == 8 * layer + 32768 * 3584 + 3584
    assert len(model.model.visual.blocks) == 4 and config.text_config.layer_types == ["full_attention"] * 8
    whole, _ = gpu.make_model(gpu.QWEN_7B, 16384, "meta")
    assert sum(p.numel() for p in whole.parameters()) == 28 * layer + 2 * 152064 * 3584 + 3584
