"""Both recipes for real, a few steps each: data, SFT, Ray + FSDP2 + vLLM GRPO, export, evaluation, summary."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from avar_rl.rollouts.record import read_step, step_files
from avar_rl.verl_plugin.watch.grafana import dashboard
from avar_rl.verl_plugin.watch.ray_metrics import gauge_of
from tests.e2e.scraper import Scraper

ROOT = Path(__file__).parents[2]
STAGE_KEYS = {"name", "accuracy", "accuracy_sampled", "format", "vas", "image_mass", "system_mass", "n"}
PARTS = ["accuracy", "visual", "format", "brief", "image_share", "dependence", "evidence", "late_attention"]
LOGGED = [f"reward/{name}" for name in (*PARTS, "total", "groups_without_accuracy_spread")]
LOGGED += [f"reward_{kind}/{name}/{stat}" for kind in ("raw", "weighted") for name in PARTS for stat in ("mean", "max")]
LOGGED += [f"reward_rate/{name}" for name in ("visual/gated", "brief/not_applicable", "undecided", "failed")]
LOGGED += ["attention/image_mass", "attention/system_mass", "training/rollout_actor_probs_pearson_corr"]
LOGGED += [f"attention/{name}_mass_{third}" for name in ("image", "system") for third in ("early", "middle", "late")]
LOGGED += ["blind/dependence", "blind/dependence_late", "blind/dependence_vs_attention", "blind/not_applicable"]
WEIGHTS = ["attention_top", "entropy_top", "vppo"]
LOGGED += [f"token_weight/{name}/share" for name in WEIGHTS] + ["token_weight/share", "token_weight/failed"]
LOGGED += [f"actor/loss_{name}" for name in ("papo", "double_entropy", "evidence", "glance")]
PLUG_IN = """
import itertools
import torch
from rewards.plugin import actor_loss, reward
from rewards.sample import AttentionSample, LossBatch, Sample

calls = itertools.count()

@reward
def brief(sample: Sample, *, words: int = 50) -> float:
    if next(calls) == 0:
        raise OSError("the first response cannot be scored")
    return float(len(sample.response.split()) <= words)

@reward
async def image_share(sample: AttentionSample) -> float:
    return float(sample.masses.image_TL.mean())

@actor_loss(needs=("masses",))
def glance(batch: LossBatch) -> torch.Tensor:
    return -torch.where(batch.has_image_N[:, None], batch.image_mass_NTL.mean(2), 1.0).clamp(min=1e-6).log()
"""
SMALL_GRPO = [
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.n=2",
]
SMALL_MICRO = [f"actor_rollout_ref.{part}_micro_batch_size_per_gpu=8" for part in ("actor.ppo", "rollout.log_prob")]
SMALL_MICRO += ["actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8"]
SMALL_SFT = "data.train_batch_size=8 data.micro_batch_size_per_gpu=4"
TWO_RANKS = "trainer.n_gpus_per_node=2"


def recipe(script: str, *overrides: str, limit: int = 1000, **knobs: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "AVAR_VENV": str(Path(sys.executable).parents[1]), "STAGE_LIMIT": "14m", **knobs}
    return subprocess.run(
        ["bash", str(ROOT / "recipes" / script), *overrides],
        env=environment, capture_output=True, text=True, timeout=limit,
    )  # fmt: skip


def metrics(path: Path) -> list[dict]:
    return [json.loads(line)["data"] for line in path.read_text().splitlines()]


def sft_steps(path: Path) -> list[dict]:
    return [step for step in metrics(path) if "train/loss" in step]  # the rest: validation


@pytest.fixture(scope="module")
def scraper(tmp_path_factory):
    return Scraper(tmp_path_factory.mktemp("recipe") / "tiny" / "logs" / "grpo.log")


@pytest.fixture(scope="module")
def tiny(scraper):
    """One short run of avar_tiny.sh, shared by the tests below; its metrics endpoint is scraped meanwhile."""
    out = scraper.log.parents[1]
    knobs = {"OUT": str(out), "SFT_STEPS": "4", "GRPO_STEPS": "2", "EVAL_LIMIT": "8"}
    knobs |= {"PRETRAIN_STEPS": "4", "PRETRAIN_ARGS": SMALL_SFT, "SFT_ARGS": f"{SMALL_SFT} {TWO_RANKS}"}
    knobs["DATA_ARGS"] = "--pretrain-rows 100 --sft-rows 200 --rl-rows 32"
    knobs["RAY_metrics_report_interval_ms"] = "1000"  # Ray's 10 s are longer than a step here
    scraper.start()
    done = recipe("avar_tiny.sh", *tiny_overrides(out), **knobs)
    scraper.stop()
    return out, knobs, done


def tiny_overrides(out: Path) -> list[str]:
    """Small batches, every shipped method at once, a dropped-in file of plug-ins; one response fails and is masked."""
    file = out.parent / "plug_in.py"
    file.write_text(PLUG_IN)
    own = [f"+avar.rewards.brief={{weight: 0.2, path: {file}, words: 30}}"]
    own += [f"+avar.rewards.image_share={{weight: 0.5, path: {file}}}", "avar.on_reward_error=mask"]
    own += ["avar.blind={}"]
    own += [
        f"+avar.rewards.{name}={{weight: 0.2, gate: null}}" for name in ("dependence", "evidence", "late_attention")
    ]
    own += [f"+avar.token_weights.{name}={{share: 0.7}}" for name in WEIGHTS]
    own += ["+avar.losses.papo=0.01", "+avar.losses.double_entropy=0.001", "+avar.losses.evidence=0.01"]
    own += [f"+avar.losses.glance={{weight: 0.01, path: {file}}}"]
    return [*SMALL_GRPO, *SMALL_MICRO, *own]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1100)
def test_tiny_recipe_runs_every_stage(tiny):
    out, _, done = tiny
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    summary = json.loads((out / "summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == ["base", "sft", "grpo"]
    assert all(STAGE_KEYS <= stage.keys() and stage["n"] == 8 for stage in summary["stages"])
    assert {"data", "pretrain", "sft", "grpo", "evaluation", "evaluation_grpo"} <= summary["seconds"].keys()
    assert "Ray dashboard: http://127.0.0.1" in done.stdout
    assert "start-up guard: rollout and actor agree" in done.stdout


@pytest.mark.e2e
@pytest.mark.slow
def test_tiny_recipe_logs_every_part(tiny):
    out, _, _ = tiny
    pretraining, sft = (sft_steps(out / "logs" / f"{stage}.metrics.jsonl") for stage in ("pretrain", "sft"))
    assert len(pretraining) == len(sft) == 4
    assert not any("train/loss_enhance" in step for step in pretraining)  # verl's own training
    guidance = yaml.safe_load((ROOT / "recipes" / "config" / "tiny_sft.yaml").read_text())["avar"]["guidance"]
    parts = [sft[-1][f"train/loss_{part}"] for part in ("lm", "enhance", "suppress")]
    weights = [1.0, guidance["alpha"], guidance["beta"]]
    assert sft[-1]["train/loss"] == pytest.approx(
        sum(weight * part for weight, part in zip(weights, parts, strict=True)), rel=1e-4
    )
    steps = metrics(out / "logs" / "grpo.metrics.jsonl")
    assert len(steps) == 2
    assert all(name in step for step in steps for name in LOGGED)
    assert all(0 < step["attention/image_mass"] < 1 and 0 < step["attention/system_mass"] < 1 for step in steps)
    for step in steps:
        assert step["actor/loss_papo"] <= 0 < step["actor/loss_glance"]
        # entropies with and without the image, of which the former is logged by verl, too
        assert step["actor/loss_double_entropy"] > 0.001 * step["actor/entropy_loss"] > 0


@pytest.mark.e2e
@pytest.mark.slow
def test_rewards_of_a_dropped_in_file_are_scored_weighted_and_masked_where_they_fail(tiny):
    out, _, done = tiny
    first, second = metrics(out / "logs" / "grpo.metrics.jsonl")
    assert first["reward_rate/failed"] == 1 / 8 and second["reward_rate/failed"] == 0.0
    for step in (first, second):
        assert step["reward_weighted/brief/mean"] == pytest.approx(0.2 * step["reward_raw/brief/mean"])
        assert 0 <= step["reward_raw/image_share/min"] < step["reward_raw/image_share/max"] < 1
        total = sum(step[f"reward_weighted/{name}/mean"] for name in PARTS)
        assert step["reward/total"] == pytest.approx(total)
    # every response of the second step counts: its mean over tokens and layers is the curve of the masses
    assert second["reward/image_share"] == pytest.approx(second["attention/image_mass"], rel=1e-5)
    assert "  image_share: " in done.stdout and "| x 0.5 -> " in done.stdout


@pytest.mark.e2e
@pytest.mark.slow
def test_token_weights_and_evidence_take_part_in_every_step(tiny):
    out, _, _ = tiny
    for step in metrics(out / "logs" / "grpo.metrics.jsonl"):
        chosen = [step[f"token_weight/{name}/share"] for name in WEIGHTS]
        assert 0 < step["token_weight/share"] <= min(chosen) < 1 and step["token_weight/failed"] == 0.0
        assert step["actor/loss_evidence"] >= 0  # 0 where no answer is right
        assert 0 < step["reward_raw/evidence/mean"] < 1 and 0 < step["reward_raw/late_attention/mean"] <= 1
    weighted = [rollout for file in step_files(out).values() for rollout in read_step(file) if rollout.weight]
    assert weighted and all(len(r.weight) == len(r.tokens) for r in weighted)
    assert any(sum(r.region_mass) > 0 for r in weighted if r.images)


@pytest.mark.e2e
@pytest.mark.slow
def test_every_curve_is_at_rays_prometheus_endpoint_on_loopback_only(tiny, scraper):
    out, _, _ = tiny
    first = metrics(out / "logs" / "grpo.metrics.jsonl")[0]
    expected = {(f"ray_{gauge}", curve) for gauge, curve in map(gauge_of, first)}
    assert ("ray_avar_reward_raw", "visual/mean") in expected and expected - scraper.seen == set()
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    queries = [re.match(r'(\w+)\{curve=~"(.+?)"', query).groups() for query in queries]
    empty = [q for q in queries if not any(q[0] == g and re.fullmatch(q[1], c) for g, c in scraper.seen)]
    assert set(empty) <= {("ray_avar_reward_check", ".+")}  # no correlation where nothing has a spread
    assert scraper.listening and scraper.listening <= {"0100007F", "0000000000000000FFFF00000100007F"}


@pytest.mark.e2e
@pytest.mark.slow
def test_every_response_is_in_the_rollout_record_and_on_its_page(tiny):
    out, _, _ = tiny
    steps = metrics(out / "logs" / "grpo.metrics.jsonl")
    files = step_files(out)
    assert list(files) == [1, 2]
    for path, logged in zip(files.values(), steps, strict=True):
        rollouts = read_step(path)
        assert len(rollouts) == 8 and len({rollout.group for rollout in rollouts}) == 4
        counted = [rollout for rollout in rollouts if not rollout.masked]
        assert sum(r.total for r in counted) / len(counted) == pytest.approx(logged["reward/total"], abs=1e-6)
        assert all(sum(r.weighted.values()) == pytest.approx(r.total, abs=1e-6) for r in counted)
        assert all(r.gold and r.question and len(r.image_mass) == len(r.tokens) > 0 for r in rollouts)
        assert all((path.parent / image).is_file() for r in rollouts for image in r.images)
        assert any(r.images for r in rollouts)
        assert all(len(r.entropy) == len(r.tokens) for r in rollouts)
        assert all(len(r.dependence) == (len(r.tokens) if r.images else 0) for r in rollouts)
        assert any(value != 0 for r in rollouts for value in r.dependence)
    command = [sys.executable, "-m", "avar_rl.rollouts", str(out)]
    page = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert page.returncode == 0, page.stderr
    assert (out / "rollouts.html").read_text().count("data:image/") >= 1


@pytest.mark.e2e
@pytest.mark.slow
def test_second_run_skips_all_and_other_settings_are_refused(tiny):
    out, knobs, _ = tiny
    again = recipe("avar_tiny.sh", *tiny_overrides(out), **knobs, limit=200)
    assert again.returncode == 0 and again.stdout.count("done before") >= 13
    other = recipe("avar_tiny.sh", *tiny_overrides(out), **(knobs | {"SFT_STEPS": "5"}), limit=200)
    assert other.returncode == 1 and "finished with another command" in other.stderr


@pytest.mark.e2e
@pytest.mark.slow
def test_a_finished_sft_that_is_started_again_changes_nothing(tiny):
    out, _, _ = tiny
    command = (out / "stages" / "sft").read_text().splitlines()[1].split()
    before = hashes(out / "checkpoints" / "sft")
    environment = {
        **os.environ,
        "VERL_FILE_LOGGER_PATH": str(out / "again.jsonl"),
        "TENSORBOARD_DIR": str(out / "again"),
    }
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert "finished before, at step 4 of 4" in again.stdout
    assert before and hashes(out / "checkpoints" / "sft") == before
    assert not (out / "again.jsonl").exists() or "train/loss" not in (out / "again.jsonl").read_text()


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1100)
def test_the_gpu_recipes_commands_run_with_another_family_on_packed_batches(tiny, tmp_path):
    """Qwen3-VL: the family that differs most (deep stack, tied embeddings, a template without a system turn)."""
    out, _, _ = tiny
    model = [sys.executable, "-m", "data_tools.miniature.model", "--family", "qwen3_vl", "--seed", "0"]
    subprocess.run([*model, "--out", tmp_path / "base", "--data", out / "data"], cwd=ROOT, check=True, timeout=240)
    table = questions_table(out / "data" / "sft_train.parquet", tmp_path / "questions.parquet")
    packed, run = "model.use_remove_padding=true", tmp_path / "seven"
    knobs = {"OUT": str(run), "PROFILE": "cpu", "MODEL": str(tmp_path / "base"), "NGPUS": "1", "TENSOR_PARALLEL": "1"}
    knobs |= {"SFT_DATA": str(table), "RL_DATA": str(table), "MAX_PROMPT": "128", "MAX_RESPONSE": "64"}
    knobs |= {"MAX_SFT": "256", "MAX_PIXELS": "50176"}  # 64 image tokens; the miniature's own images have 9
    prepare = "--question-column question --answer-column answer --images-column images --val-rows 4 --test-rows 8"
    knobs |= {"RL_COLUMNS": prepare, "SFT_COLUMNS": f"{prepare} --response-column response"}
    knobs["SFT_ARGS"] = f"{SMALL_SFT} {packed} data.use_dynamic_bsz=false trainer.total_training_steps=2"
    small = [*SMALL_GRPO, "trainer.total_training_steps=1", f"actor_rollout_ref.{packed}"]
    done = recipe("avar_qwen7b.sh", *small, **knobs, EVAL_ARGS="--samples 2")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "start-up guard: rollout and actor agree" in done.stdout
    stages = json.loads((run / "summary.json").read_text())["stages"]
    assert [stage["name"] for stage in stages] == ["base", "sft", "grpo"]
    assert all(0 < stage[f"{span}_mass"] < 1 for stage in stages for span in ("image", "system"))
    (step,) = metrics(run / "logs" / "grpo.metrics.jsonl")
    assert 0 < step["attention/image_mass"] < 1 and 0 < step["attention/system_mass"] < 1
    assert json.loads((run / "model" / "config.json").read_text())["model_type"] == "qwen3_vl"
    assert (run / "model" / "chat_template.jinja").is_file()


def questions_table(sft_rows: Path, out: Path) -> Path:
    """Plain columns (question, answer, images, response), as a user's own data would have them."""
    import re

    import pandas as pd

    rows = pd.read_parquet(sft_rows)
    rows = rows[rows["images"].map(len) > 0].head(80)
    turns = rows["messages"].map(list)
    table = {
        "question": turns.map(lambda t: t[0]["content"].replace("<image>", "")),
        "response": turns.map(lambda t: t[1]["content"]),
        "images": rows["images"],
    }
    table["answer"] = table["response"].map(lambda text: re.search(r"<answer>(.*?)</answer>", text)[1])
    pd.DataFrame(table).to_parquet(out)
    return out


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(500)
def test_sigterm_to_grpo_saves_the_step_in_flight_and_the_same_command_goes_on(tiny, tmp_path):
    """No step of it would be saved by itself. What is logged, saved and resumed is each step once."""
    out, _, _ = tiny
    command = [sys.executable, "-m", "avar_rl.verl_plugin.grpo", "recipes/config/tiny_grpo", "--profile", "cpu"]
    command += [f"data.train_files={out}/data/rl_train.parquet", f"data.val_files={out}/data/rl_val.parquet"]
    command += [f"actor_rollout_ref.model.path={out}/sft", f"trainer.default_local_dir={tmp_path}/checkpoints"]
    command += [*SMALL_GRPO, *SMALL_MICRO, "trainer.save_freq=100", "avar.rewards.visual=0"]
    log, logged = (tmp_path / "log").open("w+"), tmp_path / "metrics.jsonl"
    environment = {**os.environ, "VERL_FILE_LOGGER_PATH": str(logged), "TENSORBOARD_DIR": str(tmp_path)}
    first = subprocess.Popen(
        [*command, "trainer.total_training_steps=50"], cwd=ROOT, env=environment, stdout=log, stderr=log
    )
    deadline = time.monotonic() + 240
    while not (logged.is_file() and metrics(logged)) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=120) == 130, Path(log.name).read_text()[-4000:]
    step = int((tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    said = Path(log.name).read_text()
    assert f"stopped by a signal after step {step}, whose checkpoint is saved" in said.splitlines()[-1]
    assert [line["training/global_step"] for line in metrics(logged)] == list(range(1, step + 1))
    resumed = subprocess.run(
        [*command, f"trainer.total_training_steps={step + 1}"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stdout[-3000:] + resumed.stderr[-3000:]
    assert [line["training/global_step"] for line in metrics(logged)] == list(range(1, step + 2))
    last = metrics(logged)[-1]
    assert "reward/visual" not in last and "attention/image_mass" not in last  # no weight, no recording
    assert "blind/not_applicable" not in last and "timing_s/blind_log_prob" not in last
    saved = {path.name for path in (tmp_path / "checkpoints").glob("global_step_*")}
    assert saved == {f"global_step_{step}", f"global_step_{step + 1}"}
