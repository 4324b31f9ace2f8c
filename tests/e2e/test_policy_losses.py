"""GRPO with each of verl's policy losses, for two steps of two updates each, with recorded attention."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.test_policy_losses import documented

ROOT = Path(__file__).parents[2]
GRPO = ["data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=2", "actor_rollout_ref.rollout.n=2"]
GRPO += [f"actor_rollout_ref.{p}_micro_batch_size_per_gpu=4" for p in ("actor.ppo", "rollout.log_prob", "ref.log_prob")]
GRPO += ["avar.guard.step_minutes=15", "avar.rewards.visual.gate=null", "avar.rollouts.dir=null"]

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", documented())
def test_two_steps(name, tiny_world, tmp_path):
    command = [sys.executable, "-m", "avar_rl.verl_plugin.grpo", "recipes/config/tiny_grpo", "--profile", "cpu"]
    command += [f"actor_rollout_ref.model.path={tiny_world / 'base'}", "trainer.total_training_steps=2"]
    command += [f"data.{split}_files={tiny_world / 'data' / f'rl_{split}.parquet'}" for split in ("train", "val")]
    command += [f"trainer.default_local_dir={tmp_path}", *GRPO, *documented()[name]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    lines = (tmp_path / "logs" / "grpo.metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["data"] for line in lines]
    assert len(steps) == 2 and all(step["actor/grad_norm"] > 0 for step in steps)
    assert all(0 < step["attention/image_mass"] < 1 for step in steps)
