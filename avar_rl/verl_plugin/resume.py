"""What a training stage finds of its earlier starts, put in order before any worker is started."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from omegaconf import DictConfig

from avar_rl.runtime.shared_memory import remove_abandoned
from avar_rl.verl_plugin import checkpoints


def prepare(config: DictConfig, stage: str) -> int:
    """Settles which checkpoint a stage resumes from, clears leftovers away and sees that there is room for more.

    The first of several nodes or ranks does it; they share a file system.

    Args:
        config: the stage's configuration, with absolute paths.
        stage: "sft" or "grpo", for what is said on standard error.

    Returns: the step that is resumed from; 0 where training begins anew.

    Raises:
        ValueError: there is no room for a checkpoint, or nothing can be written there.
    """
    removed = remove_abandoned()
    if removed:
        print(f"avar {stage}: removed {removed} shared-memory files of processes that are gone", file=sys.stderr)
    trainer, folder = config.trainer, Path(config.trainer.default_local_dir)
    model = config.model if stage == "sft" else config.actor_rollout_ref.model
    checkpoint = config.checkpoint if stage == "sft" else config.actor_rollout_ref.actor.checkpoint
    kept = trainer.max_ckpt_to_keep if stage == "sft" else trainer.max_actor_ckpt_to_keep
    if trainer.resume_mode == "disable":
        step = 0
    elif trainer.resume_mode == "resume_path" or (stage == "sft" and trainer.resume_from_path):
        named = re.search(r"global_step_(\d+)", str(trainer.resume_from_path))
        step = int(named[1]) if named else 0
    elif {os.environ.get(name, "0") for name in ("NODE_RANK", "RANK")} == {"0"}:
        step, said = checkpoints.step_to_resume(folder, checkpoint.load_contents)
        checkpoints.remove_remains(folder)
        for sentence in said:
            print(f"avar {stage}: {sentence}", file=sys.stderr)
    else:
        step = checkpoints.tracked_step(folder) or 0
    has_weights = Path(model.path).is_dir() and not model.lora_rank  # a checkpoint of adapters has none of the model's
    checkpoints.check_room(folder, Path(model.path) if has_weights else None, kept)
    return step
