"""The two training stages as the miniature runs them: small batches, a checkpoint every second step."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GRPO_STEPS, SFT_STEPS = 8, 12
_SMALL_GRPO = [
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.rollout.n=2",
    "trainer.save_freq=2",
    f"trainer.total_training_steps={GRPO_STEPS}",
]
_SMALL_SFT = [
    "data.train_batch_size=8",
    "data.micro_batch_size_per_gpu=4",
    "trainer.save_freq=2",
    f"trainer.total_training_steps={SFT_STEPS}",
]


@dataclass(frozen=True)
class World:
    """What both stages start from: `data/`, `base/` and `sft/` in one folder."""

    folder: Path

    def make(self) -> None:
        """Makes what is missing; the cold start is a few steps of training."""
        data, base, sft = (self.folder / name for name in ("data", "base", "sft"))
        run = [sys.executable, "-m"]
        if not data.is_dir():
            _call([*run, "data_tools.miniature.data", "--out", str(data), "--sft-rows", "200", "--rl-rows", "64"])
        if not base.is_dir():
            _call([*run, "data_tools.miniature.model", "--out", str(base), "--data", str(data)])
        if not sft.is_dir():
            checkpoints = self.folder / "checkpoints"
            _call([*self.sft(checkpoints), "trainer.total_training_steps=4", "trainer.save_freq=4"])
            _call([*run, "avar_rl.export", str(checkpoints), str(sft), "--base", str(base)])

    def command(self, stage: str, checkpoints: Path) -> list[str]:
        """The command of "sft" or "grpo" that keeps its checkpoints in `checkpoints`."""
        return {"sft": self.sft, "grpo": self.grpo}[stage](checkpoints)

    def sft(self, checkpoints: Path) -> list[str]:
        """A cold start of two ranks."""
        return [*self._training("sft", "sft", checkpoints), f"model.path={self.folder}/base", *_SMALL_SFT]

    def grpo(self, checkpoints: Path) -> list[str]:
        """GRPO with an FSDP worker, a vLLM engine and two agent loops."""
        model = f"actor_rollout_ref.model.path={self.folder}/sft"
        return [*self._training("grpo", "rl", checkpoints), model, *_SMALL_GRPO]

    def _training(self, stage: str, rows: str, checkpoints: Path) -> list[str]:
        """What the commands of both stages have in common; `rows` begins the names of the stage's data files."""
        command = [sys.executable, "-m", f"avar_rl.verl_plugin.{stage}", f"recipes/config/tiny_{stage}"]
        command += ["--profile", "cpu", f"trainer.default_local_dir={checkpoints}"]
        return command + [f"data.{split}_files={self.folder}/data/{rows}_{split}.parquet" for split in ("train", "val")]


def _call(command: list[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
