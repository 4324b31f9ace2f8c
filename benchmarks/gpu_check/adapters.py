"""Part 6: LoRA on verl's own engine: guided steps, the checkpoint's export, and what the exported model says."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_check import engine, small_qwen
from benchmarks.gpu_check.results import PartFindings, Setting

STEPS = 8  # until what they change stands well above the rounding of bfloat16
OVERRIDES = ["model.lora_rank=16", "model.lora_alpha=32", "optim.lr=1e-3", "optim.lr_warmup_steps_ratio=0"]


def run(findings: PartFindings, setting: Setting) -> None:
    from avar_rl.export import export

    tokenizer, sizes = engine.prepare(setting)
    trainer = engine.start(findings, setting, OVERRIDES)
    rows = small_qwen.rows(tokenizer, sizes, 2)
    before = _log_probs(trainer, rows)
    losses = _train(trainer, rows)
    findings.note("loss of language, step by step", losses)
    findings.holds("guided steps under adapters lower the loss of language", losses[-1] < losses[0])
    after = _log_probs(trainer, rows)
    trainer.ckpt_handler.save_checkpoint(STEPS)
    exported = setting.work / "exported"
    source = export(setting.work / "checkpoints", exported, str(setting.work / "model"))
    findings.note("exported from", source.name)
    del trainer  # its memory
    reloaded = _log_probs_of(exported, rows, setting.device)
    effect, error = _rms(before, after), _rms(reloaded, after)
    findings.note("log-probabilities, root mean square", {"changed by training": effect, "exported": error})
    findings.at_most("exported model: error of log-probabilities over what training changed", 0.1, error / effect)


def _train(trainer, rows: list[dict[str, Any]]) -> list[float]:
    """The loss of language at each of the guided steps."""
    from avar_rl.verl_plugin.sft.trainer import guided_sft_loss

    trainer.engine.guidance = trainer.guidance
    trainer.training_client.set_loss_fn(partial(guided_sft_loss, config=None, guidance=trainer.guidance))
    outputs = [trainer.training_client.train_batch(data=engine.batch(trainer, rows)) for _ in range(STEPS)]
    return [float(output["metrics"]["train/loss_lm"]) for output in outputs]


def _log_probs(trainer, rows: list[dict[str, Any]]) -> Tensor:
    """Of every token after the first, row after row, by the engine, which records masses of the responses meanwhile."""
    output = trainer.training_client.infer_batch(data=engine.batch(trainer, rows, masses=True))
    return torch.cat([row[:-1] for row in output["log_probs"].unbind()]).float()


@torch.no_grad()
def _log_probs_of(folder, rows: list[dict[str, Any]], device: str) -> Tensor:
    """The same by the model in `folder`, one row at a time, in bfloat16."""
    from transformers import AutoModelForImageTextToText

    from avar_rl.attention.varlen import NAME

    loaded: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation=NAME)
    model = loaded.to(device).eval()
    found = []
    for row in rows:
        inputs = {"input_ids": row["input_ids"][None], "position_ids": row["position_ids"][:, None]}
        inputs = {name: value.to(device) for name, value in (inputs | row["multi_modal_inputs"]).items()}
        hidden = model.model(**inputs, use_cache=False)[0][
            0, :-1
        ]  # with fused kernels verl's model class makes no logits
        logits = model.lm_head(hidden).float()
        labels = inputs["input_ids"][0, 1:, None]
        found.append(logits.log_softmax(-1).gather(-1, labels)[:, 0].cpu())
    return torch.cat(found)


def _rms(a: Tensor, b: Tensor) -> float:
    return float((a - b).double().square().mean().sqrt())
