"""GRPO's checkpoints and its stop, with verl's own methods and without a model: what is written when, and what is left.

The whole, with Ray, FSDP and vLLM, is in tests/e2e/test_recipes.py.
"""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

import torch  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from verl.trainer.ppo import v1  # noqa: E402, F401 (verl's trainers, beside which ours are imported)
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback  # noqa: E402
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer  # noqa: E402
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync  # noqa: E402

from avar_rl.runtime.stopping import BY_SIGNAL, INTERRUPTED, OUT_OF_TIME, Stopped  # noqa: E402
from avar_rl.verl_plugin import checkpoints, stop_request  # noqa: E402
from avar_rl.verl_plugin.grpo.stoppable import StoppableTrainer  # noqa: E402


def save_actor(path: str, *arguments: Any, **more: Any) -> None:
    Path(path).mkdir(parents=True)
    torch.save({}, f"{path}/model_world_size_1_rank_0.pt")


@pytest.fixture
def trainer(tmp_path) -> Any:
    """At step 5, resumed from step 0; the actor's workers and the rollout are stand-ins."""
    it: Any = StoppableTrainer.__new__(StoppableTrainer)
    settings = {"default_local_dir": str(tmp_path), "default_hdfs_dir": None, "max_actor_ckpt_to_keep": 2}
    it.config = OmegaConf.create(
        {"trainer": settings, "actor_rollout_ref": {"actor": {"checkpoint": {"async_save": False}}}}
    )
    it.use_critic, it.trainer_mode, it.curr_step_profile, it.global_steps = False, "sync", False, 5
    it.checkpoint_callback = CheckpointCallback()
    it.actor_rollout_wg = SimpleNamespace(save_checkpoint=save_actor)
    it.train_dataloader = SimpleNamespace(state_dict=lambda: {"batches": it.global_steps})
    it.slept = []
    it.checkpoint_manager = SimpleNamespace(
        abort_replicas=lambda: it.slept.append("aborted"), sleep_replicas=lambda: it.slept.append("asleep")
    )
    it._saved_step = it._tracked_step = 0
    it._rollout_sleeps, it._asked_by = False, BY_SIGNAL
    return it


def test_a_checkpoint_is_tracked_after_its_step_was_logged(trainer, tmp_path):
    trainer._save_checkpoint()
    assert (tmp_path / "global_step_5" / "data.pt").is_file() and checkpoints.tracked_step(tmp_path) is None
    assert trainer.config.actor_rollout_ref.actor.checkpoint.async_save is False
    (tmp_path / "global_step_3").mkdir()
    torch.save({}, tmp_path / "global_step_3" / "data.pt")  # as verl leaves it of a checkpoint that it gives up
    trainer._track()
    assert checkpoints.tracked_step(tmp_path) == 5 and checkpoints.saved_steps(tmp_path) == [5]


def test_a_stop_saves_the_last_step_that_was_finished(trainer, tmp_path):
    trainer.global_steps = 8  # about to begin
    with pytest.raises(Stopped, match="after step 7"):
        trainer._stop()
    assert checkpoints.tracked_step(tmp_path) == 7 and trainer.slept == ["aborted", "asleep"]


def test_a_limit_in_time_stops_as_a_signal_does_with_a_status_of_its_own(trainer, monkeypatch, tmp_path):
    store: dict[str, str] = {}
    monkeypatch.setattr(stop_request.job_store, "get", store.get)
    monkeypatch.setattr(
        stop_request.job_store, "put", lambda name, value, overwrite=True: store.setdefault(name, value)
    )
    monkeypatch.setattr(stop_request.ray, "is_initialized", lambda: True)
    trainer.global_steps, trainer._asked_at = 8, None
    with pytest.raises(TimeoutError):  # there is no step to be finished
        stop_request.out_of_time("avar.guard.total_minutes=5")
    stop_request.say_training_has_begun()
    assert not trainer._is_asked_to_stop()
    stop_request.out_of_time("avar.guard.total_minutes=5")
    stop_request.on_signal("SIGTERM")  # what asked first is what is said
    assert trainer._is_asked_to_stop()
    with pytest.raises(
        Stopped, match="stopped by avar.guard.total_minutes=5 after step 7, whose checkpoint"
    ) as stopped:
        trainer._stop()
    assert stopped.value.status == OUT_OF_TIME and checkpoints.tracked_step(tmp_path) == 7


def test_a_step_that_is_given_up_leaves_its_place_in_the_data(trainer, tmp_path):
    trainer.global_steps, trainer._rollout_sleeps = 8, True  # in the midst of it, after sampling
    with pytest.raises(Stopped, match="after step 7"):
        trainer._stop({"batches": 6})
    assert torch.load(tmp_path / "global_step_7" / "data.pt") == {"batches": 6} and trainer.slept == []


def test_a_notice_that_is_shorter_than_the_rest_of_the_step_ends_it_in_mid_rollout(trainer, monkeypatch, tmp_path):
    """Steps take 40 s, savings 5; step 8 began 10 s ago, and the machine goes away 60 s, or 20 s, after SIGTERM."""
    buffer: Any = ReplayBuffer.__new__(ReplayBuffer)  # whose `sample` waits in this method for responses
    buffer.poll_interval = 0.0
    monkeypatch.setattr(PPOTrainerSync, "_build_replay_buffer", lambda it: buffer)
    asked: list[str] = []
    monkeypatch.setattr(stop_request, "asked_by", lambda: asked[-1] if asked else None)
    trainer.global_steps, trainer._asked_at, trainer._place_in_data = 8, None, {"batches": 6}
    trainer._step_seconds, trainer._save_seconds, trainer._began_at = 40.0, 5.0, time.monotonic() - 10
    waiting = trainer._build_replay_buffer()
    trainer._notice = 60.0
    waiting._wait_for_next_poll("train", time.time())  # nobody has asked
    asked.append(BY_SIGNAL)
    waiting._wait_for_next_poll("train", time.time())  # 30 s of the step and 5 of the saving are left
    assert checkpoints.tracked_step(tmp_path) is None and trainer.slept == []
    trainer._notice = 20.0
    with pytest.raises(Stopped, match="after step 7") as stopped:
        waiting._wait_for_next_poll("train", time.time())
    assert stopped.value.status == INTERRUPTED and checkpoints.tracked_step(tmp_path) == 7
    assert trainer.slept == ["aborted", "asleep"]  # what vLLM was generating is given up, and its memory free
    assert torch.load(tmp_path / "global_step_7" / "data.pt") == {"batches": 6}  # step 8's prompts come again


def test_what_is_saved_is_not_saved_again(trainer, tmp_path):
    trainer._save_checkpoint()
    trainer._track()
    trainer.global_steps = 6
    with pytest.raises(Stopped, match="after step 5"):
        trainer._stop()
    assert checkpoints.saved_steps(tmp_path) == [5] and trainer.slept == []
