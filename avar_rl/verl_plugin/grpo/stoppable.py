"""verl's synchronous trainer, which stops where a signal or a limit asks for it and loses at most the step in flight.

A checkpoint counts as saved when its step's metrics are written, too: only then does the tracker name it. So whatever
is killed when, no step is missing in the metrics, and none of them is there twice (`watch.metrics_file`).
"""

import time
from pathlib import Path
from typing import Any

import torch
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop import AgentLoopManager
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from avar_rl.runtime.console import tell
from avar_rl.runtime.stopping import BY_SIGNAL, Stopped, is_in_time
from avar_rl.verl_plugin import checkpoints, stop_request


class StoppableTrainer(PPOTrainerSync):
    """Ends with `Stopped` after the step in flight, or without it where the notice is too short for it.

    Args:
        notice: seconds from a request to stop until the machine goes away; 0: as many as it takes.
    """

    def __init__(self, config: Any, notice: float):
        self._notice = notice
        self._saved_step = self._tracked_step = 0  # of the newest checkpoint; of that which the tracker names
        self._asked_at: float | None = None
        self._asked_by = BY_SIGNAL  # or by what else, once somebody has
        self._began_at: float | None = None  # the step in flight
        self._step_seconds, self._save_seconds = float("inf"), 0.0  # that the last ones took; none was saved yet
        self._place_in_data: Any = None  # as it was when the step in flight began
        self._rollout_sleeps = False
        super().__init__(config)

    def _build_replay_buffer(self) -> ReplayBuffer:
        buffer: Any = super()._build_replay_buffer()
        wait = buffer._wait_for_next_poll

        def wait_or_stop(*args: Any, **kwargs: Any) -> float:
            self._stop_if_late()
            return wait(*args, **kwargs)

        buffer._wait_for_next_poll = wait_or_stop
        return buffer

    def on_train_begin(self) -> None:
        super().on_train_begin()
        self._saved_step = self._tracked_step = self.global_steps - 1  # that of the checkpoint that was resumed
        stop_request.say_training_has_begun()

    def on_step_begin(self) -> None:
        self._track()
        if self._is_asked_to_stop():
            self._stop()
        now = time.monotonic()
        if self._began_at is not None:
            self._step_seconds = now - self._began_at
            if self._notice:
                self._place_in_data = self.train_dataloader.state_dict()
        self._began_at = now
        super().on_step_begin()

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        self._stop_if_late()  # from here on the step is finished
        return super()._update_actor(batch, metrics)

    def fit(self, agent_loop_manager: AgentLoopManager) -> None:
        super().fit(agent_loop_manager)
        self._track()

    def _is_asked_to_stop(self) -> bool:
        if self._asked_at is None and (by := stop_request.asked_by()):
            self._asked_at, self._asked_by = time.monotonic(), by
        return self._asked_at is not None

    def _stop_if_late(self) -> None:
        """Gives up the step in flight, before it has changed the weights, if it and its saving last past the notice."""
        if not self._notice or not self._is_asked_to_stop():
            return
        assert self._asked_at is not None and self._began_at is not None
        now = time.monotonic()
        since = now - self._asked_at, now - self._began_at
        if not is_in_time(self._notice, *since, self._step_seconds, self._save_seconds):
            self._stop(self._place_in_data)

    def _stop(self, place_in_data: Any = None) -> None:
        """Ends the training after the last step that was finished, whose checkpoint is saved if it is not.

        Args:
            place_in_data: state of the data loader at the end of that step; None where that is its state now.
        """
        step = self.global_steps - 1
        if step > self._saved_step:
            self._put_the_rollout_to_sleep()
            self.global_steps = step
            self._save_checkpoint()
            if place_in_data is not None:
                folder = checkpoints.step_folder(Path(self.config.trainer.default_local_dir), step)
                torch.save(place_in_data, folder / "data.pt")
            self._track()
        raise Stopped(step, self._asked_by)

    def _put_the_rollout_to_sleep(self) -> None:
        """As it is where verl saves: the actor may need its memory. What it is still writing is given up."""
        if not self._rollout_sleeps:
            rollout: Any = self.checkpoint_manager  # whose coroutines run to their end where nothing awaits them
            rollout.abort_replicas()
            self.on_sample_end()

    def on_sample_end(self) -> None:
        super().on_sample_end()
        self._rollout_sleeps = True

    def on_step_end(self) -> None:
        super().on_step_end()
        self._rollout_sleeps = False

    def _save_checkpoint(self) -> None:
        """verl's own, but for the tracker, which `_track` writes: whole or not at all, and after the metrics."""
        began_at = time.monotonic()
        checkpoint = self.config.actor_rollout_ref.actor.checkpoint
        checkpoint.async_save = True  # verl then leaves the tracker to somebody else (trainer_base.py:1012)
        try:
            super()._save_checkpoint()
        finally:
            checkpoint.async_save = False
        self._saved_step, self._save_seconds = self.global_steps, time.monotonic() - began_at

    def _track(self) -> None:
        """Makes the newest checkpoint the one to resume from, and removes what verl leaves of those it gives up."""
        if self._saved_step > self._tracked_step:
            folder = Path(self.config.trainer.default_local_dir)
            checkpoints.write_tracker(folder, self._saved_step)
            checkpoints.remove_remains(folder)
            self._tracked_step = self._saved_step
            tell(f"step {self._saved_step} is saved in {folder}")
