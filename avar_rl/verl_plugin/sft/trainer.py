"""verl's SFT trainer with the attention-guided objective: L = L_LM + alpha * L_enh + beta * L_sup (arXiv 2603.03825).

With alpha = beta = 0 this is verl's own trainer, loss function and engine path, byte for byte.
L_enh and L_sup are means over the samples of the global batch (a sample without an image contributes exactly zero).
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.losses import sft_loss

from avar_rl.guidance import GuidanceConfig
from avar_rl.runtime.console import tell
from avar_rl.runtime.stopping import Stopped
from avar_rl.verl_plugin.engine import SpanMassEngine
from avar_rl.verl_plugin.watch import console

_REPORT_EVERY = 10  # steps between two lines on the console


def guided_sft_loss(
    config: Any, model_output: dict, data: TensorDict, dp_group: Any = None, *, guidance: GuidanceConfig
) -> tuple[torch.Tensor, dict[str, Metric]]:
    """verl's token-mean LM loss plus the weighted guidance terms, each part also returned as a metric.

    verl adds up the losses of micro-batches and FSDP averages gradients over `dp_size` ranks; hence each part is its
    sum over this micro-batch divided by the global batch size, times dp_size.
    """
    language, _ = sft_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
    ranks: Any = data["dp_size"]
    samples: Any = tu.get_non_tensor_data(data, "global_batch_size", default=None)
    per_sample = ranks / samples
    enhance = model_output["guidance_enhance"].values().sum() * per_sample
    suppress = model_output["guidance_suppress"].values().sum() * per_sample
    parts = {"train/loss_lm": language, "train/loss_enhance": enhance, "train/loss_suppress": suppress}
    metrics = {name: Metric(value=part.detach(), aggregation=AggregationType.SUM) for name, part in parts.items()}
    return language + guidance.alpha * enhance + guidance.beta * suppress, metrics


def _leave_the_process_group(worker: int) -> None:
    """For a process that loads data: a signal to the whole group would end it, and with it the step in flight."""
    os.setpgrp()


class GuidedSFTTrainer(SFTTrainer):
    """verl's SFT trainer with the guided loss, whole losses in its log, and a line on the console every ten steps.

    Where `stop_requested()` is true in any rank at the end of a step, that step is saved and `fit` raises `Stopped`.
    """

    def __init__(self, config: DictConfig, guidance: GuidanceConfig, stop_requested: Callable[[], bool] | None = None):
        self.guidance = guidance  # before verl's own __init__ builds the engine
        self._stop_requested = stop_requested or (lambda: False)
        self._stopping = False
        self._reported_steps = 0
        super().__init__(config=config)

    def fit(self) -> None:
        """Trains up to the last step. verl, started again after its end, would train one more step each time."""
        if self.resume_global_step >= self.total_training_steps:
            if self.rank == 0:
                tell(f"finished before, at step {self.resume_global_step} of {self.total_training_steps}")
            return
        super().fit()

    def _build_engine(self) -> None:
        super()._build_engine()
        if self.guidance.enabled:
            engine = self.engine
            if not isinstance(engine, SpanMassEngine):
                raise RuntimeError(f"verl built a {type(engine).__name__}; the guided loss needs our SpanMassEngine")
            engine.guidance = self.guidance
            self.training_client.set_loss_fn(partial(guided_sft_loss, config=None, guidance=self.guidance))
        self._train_batch = self.training_client.train_batch
        self.training_client.train_batch = self._train_and_report

    def _train_and_report(self, data: TensorDict) -> TensorDict:
        output = self._train_batch(data=data)
        if self.engine.is_mp_src_rank_with_outputs():
            _reduce_metrics(tu.get(output, "metrics"))
        self._reported_steps += 1
        if self.rank == 0 and self._reported_steps % _REPORT_EVERY == 0:
            metrics = {name if "/" in name else f"train/{name}": v for name, v in tu.get(output, "metrics").items()}
            tell(console.line(self.resume_global_step + self._reported_steps, metrics, console.SFT))
        if self._any_rank_is_to_stop():
            self._stopping = True
            self.save_freq = 1  # verl saves this step, too
        return output

    def _any_rank_is_to_stop(self) -> bool:
        """The same answer in all ranks, which then leave after the same step, whichever of them got the signal."""
        request = torch.tensor(float(self._stop_requested()), device=self.device_name)
        torch.distributed.all_reduce(request, op=torch.distributed.ReduceOp.MAX)
        return bool(request)

    def _build_dataloader(self) -> None:
        super()._build_dataloader()
        for loader in filter(None, (self.train_dataloader, self.val_dataloader)):
            loader.worker_init_fn = _leave_the_process_group

    def _build_ckpt_handler(self) -> None:
        super()._build_ckpt_handler()
        self._save = self.ckpt_handler.save_checkpoint
        self.ckpt_handler.save_checkpoint = self._save_and_stop
        self._load_place_in_data = self.ckpt_handler._load_dataloader_state
        self.ckpt_handler._load_dataloader_state = self._load_place_within_epoch

    def _load_place_within_epoch(self, checkpoint_path: str) -> None:
        """Where a checkpoint is of an epoch's last step, the next epoch begins at its first row.

        verl 0.9.1 (checkpoint_handler.py:166) goes on behind the last row, in the next epoch's order: it trains nothing
        of that epoch, and where it is the last one, ends short of its last step.
        """
        if self.ckpt_handler.resume_global_step % self.steps_per_epoch:
            self._load_place_in_data(checkpoint_path)

    def _save_and_stop(self, step: int) -> None:
        self._save(step=step)
        if self._stopping and step < self.total_training_steps:
            raise Stopped(step)


def _reduce_metrics(metrics: dict) -> None:
    """verl's SFT loop logs numbers; a loss's own metrics arrive as one `Metric` a rank, one value a micro-batch."""
    for name, value in metrics.items():
        ranks = value if isinstance(value, list) else [value]
        if isinstance(ranks[0], Metric):
            metrics[name] = float(Metric.aggregate_dp(ranks))
