"""The check of a whole recipe: every mistake is one sentence before any training, and what is fine is quiet."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from avar_rl.estimate import GB
from avar_rl.runtime.recipe_plan import read_plan
from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from avar_rl.verl_plugin.recipe_check import check as recipe_check  # noqa: E402
from avar_rl.verl_plugin.recipe_check import machine, plan  # noqa: E402

ROOT = Path(__file__).parents[2]
EIGHT = machine.Machine(cards=(85 * GB,) * 8, card=85 * GB, memory=1000 * GB, available=900 * GB)
ONE = replace(EIGHT, cards=(85 * GB,))
PROFILE = os.environ.get("AVAR_PROFILE", "cpu")  # of this environment
STAGES = f"PROFILE={PROFILE}; source recipes/stages.sh"  # a recipe's beginning
CPU_PROFILE = pytest.mark.skipif(PROFILE == "gpu", reason="the miniature's recipe needs the other")
SMALL = machine.Machine(cards=(25 * GB,), card=25 * GB, memory=64 * GB, available=60 * GB)


@pytest.fixture
def model(tiny_world, tmp_path):
    """`model(name)`: a directory with a real model's configuration, the miniature's processor, and no weights."""

    def make(name: str) -> str:
        folder = tmp_path / name
        shutil.copytree(tiny_world / "base", folder, ignore=shutil.ignore_patterns("*.safetensors"))
        shutil.copyfile(ROOT / "tests" / "data" / "configs" / name / "config.json", folder / "config.json")
        return str(folder)

    return make


@pytest.fixture
def checked(tiny_world, tmp_path, monkeypatch, capsys):
    """`checked(script, here, *overrides, **knobs)`: exit status and messages of a GPU recipe's check on a machine."""
    monkeypatch.setattr(recipe_check.preflight, "check_model", lambda path: None)  # its processor is the miniature's
    out = tmp_path / "out"

    def run(script: str, here: machine.Machine, *overrides: str, disk: int = 2000 * GB, **knobs: str):
        data = str(tiny_world / "data" / "rl_train.parquet")
        knobs = {"PROFILE": "gpu", "OUT": str(out), "SFT_DATA": data, "RL_DATA": data, **knobs}
        stages = read_plan(planned(script, *overrides, **knobs))
        monkeypatch.setattr(machine, "look", lambda: here)
        monkeypatch.setattr(machine, "free_disk", lambda folder: disk)
        status = recipe_check.check(stages, out, "gpu", verbose=False)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def planned(script: str, *overrides: str, **knobs: str) -> str:
    """A recipe's plan, as recipes/stages.sh hands it to the check."""
    catch = 'run_recipe() { PLAN=1 recipe_stages "$@"; }'
    text = (ROOT / "recipes" / script).read_text().replace("source recipes/gpu_stages.sh", "")
    stages = (ROOT / "recipes" / "gpu_stages.sh").read_text().replace('run_recipe "$@"', f'{catch}\nrun_recipe "$@"')
    bash = f"cd {ROOT}\n" + text.replace('cd "$(dirname "${BASH_SOURCE[0]}")/.."', "") + stages
    done = subprocess.run(
        ["bash", "-c", bash, "recipe", *overrides],
        env={**os.environ, "DRY_RUN": "1", "AVAR_VENV": str(Path(sys.executable).parents[1]), **knobs},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_seven_billion_fits_eight_cards(checked, model):
    status, out, err = checked("avar_qwen7b.sh", EIGHT, MODEL=model("Qwen2.5-VL-7B-Instruct"))
    assert status == 0, err
    assert "stage sft, training, each of 8 GPUs 39." in out and "stage grpo, rollout, each of 8 GPUs" in out
    assert "note:" not in err


def test_three_billion_with_adapters_fits_24_gb(checked, model):
    status, out, err = checked("avar_qwen3b_1gpu.sh", SMALL, MODEL=model("Qwen2.5-VL-3B-Instruct"))
    assert status == 0, err
    assert "stage grpo, training, each of 1 GPUs" in out


def test_larger_models_with_adapters_fit_one_80_gb_card(checked, model):
    for name in ("Qwen2.5-VL-7B-Instruct", "Qwen3-VL-8B-Instruct"):
        status, _, err = checked("avar_qwen3b_1gpu.sh", ONE, MODEL=model(name), TOKENS_PER_GPU="16384")
        assert status == 0, err


def test_a_card_too_small_names_the_knobs_that_would_help(checked, model):
    path = model("Qwen2.5-VL-7B-Instruct")
    status, out, err = checked("avar_qwen7b.sh", ONE, MODEL=path, NGPUS="1")
    assert status == 2
    (said,) = [line for line in err.splitlines() if "stage sft, training" in line]
    assert "about 15" in said and "there are 85.0: set LORA_RANK=64 or OFFLOAD=1" in said
    assert "│ optimizer (Adam)" in out  # the parts, where something is refused
    for knob in ({"LORA_RANK": "64"}, {"OFFLOAD": "1"}):
        status, _, err = checked("avar_qwen7b.sh", ONE, MODEL=path, NGPUS="1", **knob)
        assert status == 0, (knob, err)


def test_a_rollout_that_cannot_hold_its_weights(checked, model):
    path = model("Qwen2.5-VL-7B-Instruct")
    status, _, err = checked("avar_qwen3b_1gpu.sh", SMALL, MODEL=path)
    assert status == 2 and "the engine's share" in err and "raise ROLLOUT_MEMORY or TENSOR_PARALLEL" in err


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({"NGPUS": "1", "LORA_RANK": "64", "TENSOR_PARALLEL": "2"}, "does not divide the 1 devices"),
        (
            {"TENSOR_PARALLEL": "8"},
            "does not divide the model's 28 attention heads: set TENSOR_PARALLEL to one of 1, 2",
        ),
        ({"NGPUS": "16"}, "16 GPUs a node are wanted, and this machine has 8: set NGPUS=8"),
        ({"MAX_PIXELS": "1605632"}, "lets images of 2048 tokens through, and a whole prompt has MAX_PROMPT=2048"),
        ({"RL_DATA": "/nowhere/rl.parquet"}, "stage rl_data: /nowhere/rl.parquet: no such data file"),
        (
            {"LORA_RANK": "8", "SFT_ARGS": "model.target_modules=[no_such]"},
            "target_modules=['no_such'] names no linear",
        ),
        ({"SFT_ROWS": "/nowhere/rows.parquet"}, "/nowhere/rows.parquet: no such file"),
        ({"BENCHMARKS": "mmmmu"}, "unknown benchmark 'mmmmu'; known are mathvista, "),
        ({"BENCHMARKS": "mmmu", "BENCHMARK_ARGS": "--benchmark-data /nowhere"}, "--benchmark-data /nowhere: no folder"),
        (
            {"BENCHMARKS": "mmmu", "BENCHMARK_ARGS": "--benchmark-data mmmu=/nowhere/mmmu.parquet"},
            "stage benchmarks: /nowhere/mmmu.parquet: no such data file",
        ),
        ({"BENCHMARKS": "all", "BENCHMARK_ARGS": "--prompts mine.txt"}, "--prompts mine.txt: neither official"),
        ({"BENCHMARKS": "all", "BENCHMARK_ARGS": "--promts ours"}, "unrecognized arguments: --promts ours"),
    ],
)
def test_a_mistake_is_one_sentence_before_the_first_stage(knobs, expected, checked, model):
    status, _, err = checked("avar_qwen7b.sh", EIGHT, MODEL=model("Qwen2.5-VL-7B-Instruct"), **knobs)
    assert status == 2 and expected in err and "Traceback" not in err


def test_what_a_family_cannot_do_is_said_before_the_first_stage(checked, model):
    ulysses = "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2"
    for name, faults in (("Qwen2.5-VL-7B-Instruct", 0), ("Qwen3-VL-8B-Instruct", 1)):
        _, _, err = checked("avar_qwen7b.sh", EIGHT, ulysses, MODEL=model(name))
        assert err.count("span masses are recorded for qwen2_vl and qwen2_5_vl, not qwen3_vl") == faults


def test_long_responses_raise_the_token_limits(checked, model):
    path = model("Qwen2.5-VL-7B-Instruct")
    status, _, err = checked("avar_qwen7b.sh", EIGHT, MODEL=path, MAX_RESPONSE="20000", MAX_SFT="20000")
    assert status == 0, err


def test_host_and_disk(checked, model):
    path = model("Qwen2.5-VL-7B-Instruct")
    status, _, err = checked("avar_qwen7b.sh", replace(EIGHT, memory=120 * GB, available=110 * GB), MODEL=path)
    assert status == 2 and "stage grpo, host memory: about 124.2 GB are needed, and there are 120.0" in err
    status, _, err = checked("avar_qwen7b.sh", replace(EIGHT, available=150 * GB), MODEL=path)
    assert status == 0 and "note: stage grpo, host memory: about 169.2 GB are needed, and 150.0 are free" in err
    status, _, err = checked("avar_qwen7b.sh", EIGHT, MODEL=path, disk=300 * GB)
    assert status == 2 and "disk at OUT, all stages: about 49" in err and "LORA_RANK" in err


def test_no_card_here_and_a_model_that_cannot_be_read(checked, model, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    none = replace(EIGHT, cards=(), card=80 * GB)
    status, _, err = checked("avar_qwen7b.sh", none, MODEL=model("Qwen2.5-VL-7B-Instruct"))
    assert status == 2 and "nvidia-smi lists no GPU here" in err
    status, _, err = checked("avar_qwen7b.sh", EIGHT, MODEL="Nobody/Nothing")
    assert status == 0 and "note: the configuration of Nobody/Nothing cannot be read" in err
    assert "memory and disk could not be checked" in err


def test_what_is_there_already_is_not_needed_again(checked, model, tmp_path):
    stage = read_plan(planned("avar_qwen7b.sh", OUT=str(tmp_path / "out"), PROFILE="gpu"))
    assert [s.name for s in stage][:2] == ["base", "sft_data"] and stage[-1].name == "summary"
    assert plan.origin(str(tmp_path / "out" / "sft"), stage) == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert plan.pixel_cap(stage) == 1003520
    sizes = json.loads((ROOT / "tests/data/configs/Qwen2.5-VL-7B-Instruct/config.json").read_text())
    assert sizes["text_config"]["num_attention_heads"] == 28


def test_benchmarks_are_the_last_stage_where_they_are_asked_for(checked, model, tmp_path):
    status, _, err = checked("avar_qwen7b.sh", EIGHT, MODEL=model("Qwen2.5-VL-7B-Instruct"), BENCHMARKS="all")
    assert status == 0, err
    out = str(tmp_path / "out")
    more = {"BENCHMARKS": "all", "TENSOR_PARALLEL": "2", "NNODES": "2", "BENCHMARK_ARGS": "--prompts ours --vas"}
    last = read_plan(planned("avar_qwen7b.sh", OUT=out, PROFILE="gpu", **more))[-1]
    assert last.name == "benchmarks" and last.module == "avar_rl.evaluation"
    expected = [f"base={out}/base", f"sft={out}/sft", f"grpo={out}/model", "--benchmarks", "all", "--out"]
    expected += [f"{out}/benchmarks", "--tensor-parallel", "2", "--replicas", "8", "--prompts", "ours", "--vas"]
    assert list(last.arguments) == expected


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, None),
        ({"MODEL": "base=/nowhere", "DATA": "/nowhere"}, "--benchmark-data /nowhere: no folder"),
        ({"MODEL": ""}, "MODEL names what is evaluated"),
    ],
)
def test_the_recipe_of_an_evaluation_is_checked_before_a_model_is_loaded(knobs, expected, tiny_world, tmp_path):
    given = {"DRY_RUN": "1", "OUT": str(tmp_path / "out"), "PROFILE": "cpu", "MODEL": f"base={tiny_world / 'base'}"}
    given |= {"AVAR_VENV": str(Path(sys.executable).parents[1])} | knobs
    done = subprocess.run(
        ["bash", str(ROOT / "recipes" / "evaluate.sh"), "--samples", "4"],
        env={**os.environ, **given}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    if expected is None:
        assert done.returncode == 0, done.stderr
        assert "# stage benchmarks: " in done.stdout and done.stdout.rstrip().endswith("--replicas 1 --samples 4")
    else:
        assert done.returncode != 0 and expected in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_can_be_written(tmp_path):
    with pytest.raises(OSError):
        machine.free_disk(Path("/proc/nothing"))
    assert machine.free_disk(tmp_path / "not" / "yet") > 0


def test_cards_are_those_that_are_visible(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '81559\\n81559\\n24564\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.look({}).cards == (81559 * 2**20, 81559 * 2**20, 24564 * 2**20)
    assert machine.look({}).card == 24564 * 2**20
    assert machine.look({"CUDA_VISIBLE_DEVICES": "0,1"}).cards == (81559 * 2**20,) * 2
    assert machine.look({"CUDA_VISIBLE_DEVICES": "GPU-5a"}).cards == (81559 * 2**20,)
    assert machine.look({"CUDA_VISIBLE_DEVICES": "", "GPU_MEMORY_GB": "24"}).card == 24 * GB
    with pytest.raises(ValueError, match="GPU_MEMORY_GB=much is no number"):
        machine.look({"GPU_MEMORY_GB": "much"})


def tiny(out: Path, **knobs: str) -> subprocess.Popen:
    environment = {**os.environ, "OUT": str(out), "AVAR_VENV": str(Path(sys.executable).parents[1]), **knobs}
    return subprocess.Popen(
        ["bash", str(ROOT / "recipes" / "avar_tiny.sh")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@CPU_PROFILE
def test_two_recipes_in_one_folder(tmp_path):
    """The second is refused, and what was the first's does not keep the folder closed."""
    stages = "stage orphan bash -c 'sleep 61 >/dev/null 2>&1 &'; stage long sleep 60"
    held = subprocess.Popen(
        ["bash", "-c", f"OUT={tmp_path}; {STAGES}; {stages}"],
        cwd=ROOT, env={**os.environ, "AVAR_VENV": str(Path(sys.executable).parents[1])},
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert held.stdout is not None
    for line in held.stdout:
        if line == "== long\n":
            break
    _, err = (second := tiny(tmp_path)).communicate(timeout=100)
    assert second.returncode == 2
    assert f"another recipe (process {held.pid} on " in err and "is at work in" in err
    held.kill()
    held.wait()
    free = ["flock", "-w", "30", str(tmp_path / ".lock"), "true"]  # its stage ends, and with it the last who held on
    assert subprocess.run(free, timeout=60).returncode == 0


@pytest.mark.parametrize(("age", "refused"), [(10, True), (1000, False)])
def test_a_recipe_on_another_node_holds_a_folder_by_its_signs_of_life(tmp_path, age, refused):
    """Where the shared file system does not carry locks from node to node: nobody here holds this one."""
    lock = tmp_path / ".lock"
    lock.write_text("process 4711 on node17\n")
    os.utime(lock, (time.time() - age,) * 2)
    took = subprocess.run(
        ["bash", "-c", f"OUT={tmp_path}; {STAGES}; cat $OUT/.lock"],
        cwd=ROOT, env={**os.environ, "AVAR_VENV": str(Path(sys.executable).parents[1])},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert took.returncode == (2 if refused else 0)
    assert ("another recipe (process 4711 on node17) is at work in" in took.stderr) == refused
    assert lock.read_text() == ("process 4711 on node17\n" if refused else "")  # let go of at its end


def test_a_signal_to_a_recipe_ends_its_stage_in_good_order(tmp_path):
    """To the shell alone, as `kill` and Slurm's `--signal=B:` send it."""
    work = "trap 'echo saved; exit 3' TERM; echo at work; while true; do sleep 0.1; done"
    stages = f'stage long bash -c "{work}"; stage next true'
    recipe = subprocess.Popen(
        ["bash", "-c", f"set -e; OUT={tmp_path}; {STAGES}; {stages}"],
        cwd=ROOT, env={**os.environ, "AVAR_VENV": str(Path(sys.executable).parents[1])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert recipe.stdout is not None
    for line in recipe.stdout:
        if line == "at work\n":
            break
    recipe.terminate()
    said, err = recipe.communicate(timeout=100)
    assert recipe.returncode == 130 and said == "saved\n"
    assert "stage long stopped with status 130" in err and not list((tmp_path / "stages").iterdir())


def test_a_stage_that_knows_what_is_done_runs_every_time(tmp_path):
    stages = f"stage once bash -c 'echo once >>{tmp_path}/ran'; stage_again again bash -c 'echo again >>{tmp_path}/ran'"
    for fails in (True, False):
        last = "stage_again last false" if fails else "stage_again last true"
        done = subprocess.run(
            ["bash", "-c", f"set -e; OUT={tmp_path}; {STAGES}; {stages}; {last}"],
            cwd=ROOT, env={**os.environ, "AVAR_VENV": str(Path(sys.executable).parents[1])},
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == int(fails), done.stderr
        assert ("stage last stopped with status 1" in done.stderr) == fails
    assert (tmp_path / "ran").read_text() == "once\nagain\nagain\n"
    assert [path.name for path in (tmp_path / "stages").iterdir()] == ["once"]


@CPU_PROFILE
def test_a_folder_that_cannot_be_made():
    process = tiny(Path("/proc/nothing"))
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2 and "cannot write to /proc/nothing: choose another OUT" in err
