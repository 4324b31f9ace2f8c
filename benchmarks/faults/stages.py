"""The two training stages as the miniature runs them: small batches, a checkpoint every step."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STEPS = {"sft": 80, "grpo": 32}
_SMALL = {
    "sft": [
        "data.train_batch_size=8",
        "data.micro_batch_size_per_gpu=4",
        "trainer.n_gpus_per_node=2",
        "trainer.logger=[console,file]",  # a line for each step; the stage's own are for every tenth
    ],
    "grpo": [
        "data.train_batch_size=4",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.n=2",
        "trainer.logger=[file]",
        "avar.guard.step_minutes=30",  # a start takes over the miniature's 5 where the machine has other work
        "ray_kwargs.ray_init.include_dashboard=false",  # whose start takes seconds
        "avar.rewards.visual.gate=null",  # so that rewards have a spread, whatever the answers, and weights change
    ],
}
# What recipes/stages.sh does with a stage, without the signals that it passes on.
_ATTENDED = '"$0" -m avar_rl.runtime.attend --parent $$ -- "$@" & wait $!'


@dataclass(frozen=True)
class World:
    """What both stages start from: `data/`, `base/` and `sft/` in one folder."""

    folder: Path

    def make(self) -> None:
        """Makes what is missing; the cold start is a few steps of training."""
        data, base, sft = (self.folder / name for name in ("data", "base", "sft"))
        run = [sys.executable, "-m"]
        if not data.is_dir():
            _call(
                [
                    *run,
                    "data_tools.miniature.data",
                    "--out",
                    str(data),
                    "--pretrain-rows",
                    "200",
                    "--sft-rows",
                    "200",
                    "--rl-rows",
                    "64",
                ]
            )
        if not base.is_dir():
            _call([*run, "data_tools.miniature.model", "--out", str(base), "--data", str(data)])
        if not sft.is_dir():
            checkpoints = self.folder / "checkpoints"
            _call([*self.command("sft", checkpoints), "trainer.total_training_steps=20"])
            _call([*run, "avar_rl.export", str(checkpoints), str(sft), "--base", str(base)])

    def command(self, stage: str, checkpoints: Path) -> list[str]:
        """The command of "sft", a cold start of two ranks, or of "grpo": one FSDP worker, one engine, two agent loops.

        Args:
            checkpoints: the folder that it keeps its checkpoints in.
        """
        data, model = self.folder / "data", self._start(stage)
        command = [sys.executable, "-m", f"avar_rl.verl_plugin.{stage}", f"recipes/config/tiny_{stage}"]
        command += ["--profile", "cpu", f"trainer.default_local_dir={checkpoints}", "trainer.save_freq=1"]
        command += [f"trainer.total_training_steps={STEPS[stage]}", *_SMALL[stage]]
        if stage == "sft":
            return [*command, f"model.path={model}", f"data.train_files={data}/sft_train.parquet"]
        command += [f"data.{split}_files={data}/rl_{split}.parquet" for split in ("train", "val")]
        return [*command, f"actor_rollout_ref.model.path={model}"]

    def start_weights(self, stage: str) -> dict[str, Any]:
        """The weights that a stage starts from, as tensors by their names in checkpoints."""
        from transformers import AutoModelForImageTextToText

        loaded: Any = AutoModelForImageTextToText.from_pretrained(self._start(stage))
        return loaded.state_dict()

    def _start(self, stage: str) -> Path:
        return self.folder / {"sft": "base", "grpo": "sft"}[stage]


def attended(command: list[str]) -> list[str]:
    """A stage's command as a recipe runs it: by a shell, under the process that attends to it."""
    return ["bash", "-c", _ATTENDED, sys.executable, *command]


def _call(command: list[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
