"""LoRA end to end: cold start and GRPO with adapters, export merged and alone, the same texts wherever it is loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avar_rl.export import export
from avar_rl.rollouts.record import read_step, step_files

ROOT = Path(__file__).parents[2]
LORA = {"lora_rank": 8, "lora_alpha": 16}
SFT = ["data.train_batch_size=8", "data.micro_batch_size_per_gpu=4", "data.num_workers=0", "data.val_files=null"]
GRPO = ["data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4", "actor_rollout_ref.rollout.n=2"]
GRPO += [f"actor_rollout_ref.{p}_micro_batch_size_per_gpu=8" for p in ("actor.ppo", "rollout.log_prob", "ref.log_prob")]
GRPO += [
    "avar.guard.step_minutes=15",
    "actor_rollout_ref.rollout.load_format=safetensors",
    "actor_rollout_ref.rollout.layered_summon=true",
]
# a reward that differs between any two responses, right or wrong: there is something to learn in every step
GRPO += ["avar.rewards.visual.gate=null", "algorithm.norm_adv_by_std_in_grpo=true"]
# large enough a step that a rollout without the adapters would differ by more than the guard allows
GRPO += ["actor_rollout_ref.actor.optim.lr=1.0e-2", "actor_rollout_ref.actor.optim.lr_warmup_steps=0"]

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]


def run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def train(stage: str, model: Path, data: Path, out: Path, steps: int, *overrides: str) -> str:
    node = "model" if stage == "sft" else "actor_rollout_ref.model"
    command = ["-m", f"avar_rl.verl_plugin.{stage}", f"recipes/config/tiny_{stage}", "--profile", "cpu"]
    command += [f"{node}.path={model}", *(f"{node}.{name}={value}" for name, value in LORA.items())]
    command += [f"data.train_files={data}", f"trainer.total_training_steps={steps}"]
    command += [f"trainer.default_local_dir={out}", f"trainer.save_freq={steps}", *overrides]
    return run(*command)


@pytest.fixture(scope="module")
def trained(tiny_world, tmp_path_factory):
    """Folder with the checkpoints of both stages and what is exported of them: sft/, model/, adapter/."""
    out = tmp_path_factory.mktemp("lora")
    data = tiny_world / "data"
    train("sft", tiny_world / "base", data / "sft_train.parquet", out / "checkpoints" / "sft", 4, *SFT)
    export(out / "checkpoints" / "sft", out / "sft", str(tiny_world / "base"))
    own = [f"data.val_files={data / 'rl_val.parquet'}", f"avar.rollouts.dir={out / 'rollouts'}"]
    log = train("grpo", out / "sft", data / "rl_train.parquet", out / "checkpoints" / "grpo", 2, *GRPO, *own)
    (out / "grpo.log").write_text(log)
    export(out / "checkpoints" / "grpo", out / "model", str(out / "sft"))
    export(out / "checkpoints" / "grpo", out / "adapter", str(out / "sft"), adapter_only=True)
    return out


def metrics(folder: Path, stage: str) -> list[dict]:
    lines = (folder / "checkpoints" / stage / "logs" / f"{stage}.metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["data"] for line in lines]


def test_the_guided_loss_trains_adapters_in_every_layer_of_the_language_model(trained, tiny_world):
    first = metrics(trained, "sft")[0]
    assert first["train/loss_enhance"] != 0 and first["train/loss_suppress"] != 0
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_world / "base", trained / "sft"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("model.layers.") and name.endswith("_proj.weight")}


def test_a_checkpoint_keeps_the_adapters_and_no_frozen_weights(trained, tiny_world):
    base = (tiny_world / "base" / "model.safetensors").stat().st_size
    for folder in (trained / "checkpoints/sft/global_step_4", trained / "checkpoints/grpo/global_step_2/actor"):
        assert not list(folder.glob("huggingface/*.safetensors"))
        weights = [file.stat().st_size for file in folder.glob("model_world_size_*.pt")]
        assert weights and sum(weights) < base / 4


def test_the_rollout_samples_from_the_trained_adapters_and_the_reference_has_none(trained):
    log = (trained / "grpo.log").read_text()
    assert all(f"start-up guard: rollout and actor agree at step {step}" in log for step in (1, 2))
    first, second = metrics(trained, "grpo")
    assert abs(first["actor/kl_loss"]) < 1e-6 < 1e-4 < second["actor/kl_loss"]


def test_masses_are_recorded_under_adapters(trained):
    assert all(0 < step["attention/image_mass"] < 1 for step in metrics(trained, "grpo"))
    rollouts = read_step(step_files(trained)[2])
    assert len(rollouts) == 8 and all(len(r.image_mass) == len(r.tokens) > 0 for r in rollouts)


def test_merged_or_alone_transformers_and_vllm_say_the_same(trained, tiny_world):
    worker = str(ROOT / "tests/e2e/adapter_texts_worker.py")
    data = str(tiny_world / "data" / "rl_train.parquet")
    run(worker, str(trained), data, str(trained / "texts.json"))
    found = json.loads((trained / "texts.json").read_text())
    assert found["vLLM"]["adapter"] == found["transformers"]["adapter"] == found["transformers"]["merged"]
    assert found["vLLM"]["merged"] == found["transformers"]["merged"]
    assert found["transformers"]["base"] != found["transformers"]["merged"]
