"""Part 4: GRPO's two passes on verl's own engine: old log-probabilities with masses, and a policy update.

Advantages are made up: +1 for every other row, -1 for the rest. With verl's fused kernels off, and on.
"""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_check import engine, small_qwen
from benchmarks.gpu_check.results import PartFindings, Setting

TOKENS = (4096, 16384)


def run(findings: PartFindings, setting: Setting) -> None:
    tokenizer, sizes = engine.prepare(setting)
    rows = small_qwen.rows(tokenizer, sizes, 4)
    for fused in (False, True):
        name = f"fused kernels {'on' if fused else 'off'}"
        overrides = [f"model.use_fused_kernels={str(fused).lower()}", "optim.lr_warmup_steps_ratio=0"]
        overrides.append(f"optim.lr={1e-3 if setting.miniature else 1e-5}")  # seen beside bf16 log-probabilities
        trainer = engine.start(findings, setting, overrides)
        before = _check_recording(findings, trainer, rows, name, fused)
        _check_update(findings, trainer, rows, before, name)
        if fused:  # without, and without flash-attn, verl takes one softmax a token
            _check_cost(findings, setting, trainer, sizes)
        del trainer
        gc.collect()
        if not setting.miniature:
            torch.cuda.empty_cache()


def _check_recording(findings: PartFindings, trainer, rows: list[dict], name: str, fused: bool) -> list[Tensor]:
    """That recording changes nothing. Returns the log-probabilities of each row's tokens."""
    logits: list[Tensor] = []
    head = trainer.engine.module.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: logits.append(output.detach().clone()))
    plain, recorded = (_log_probs(trainer, rows, masses) for masses in (False, True))
    handle.remove()
    same = all(map(torch.equal, plain, recorded))
    findings.holds(f"{name}: log-probabilities bit-identical with masses and without", same)
    if not fused:  # fused kernels make no logits
        findings.holds(f"{name}: logits bit-identical with masses and without", torch.equal(*logits))
    return plain


def _log_probs(trainer, rows: list[dict[str, Any]], masses: bool) -> list[Tensor]:
    output = trainer.training_client.infer_batch(data=engine.batch(trainer, rows, masses))
    if masses:
        assert len(output["image_mass"].unbind()) == len(rows)
    return list(output["log_probs"].unbind())


def _check_update(findings: PartFindings, trainer, rows: list[dict], before: list[Tensor], name: str) -> None:
    """One step of verl's policy loss must make what has a positive advantage likelier, and the rest less likely."""
    from verl.workers.config import FSDPActorConfig
    from verl.workers.utils.losses import ppo_loss

    actor = FSDPActorConfig(
        strategy="fsdp2", rollout_n=2, use_dynamic_bsz=True, loss_agg_mode="seq-mean-token-mean", clip_ratio=0.2
    )
    trainer.training_client.set_loss_fn(partial(ppo_loss, config=actor))
    signs = [1.0 if index % 2 == 0 else -1.0 for index in range(len(rows))]
    sampled = [_sampled(*of_row) for of_row in zip(rows, before, signs, strict=True)]
    trainer.engine.guidance = None
    output = trainer.training_client.train_batch(data=engine.batch(trainer, sampled))
    metrics = output["metrics"]
    gains = []
    for row, old, new, sign in zip(rows, before, _log_probs(trainer, rows, masses=True), signs, strict=True):
        written = row["loss_mask"].roll(-1).bool()  # the log-probability of a token stands at the one before it
        gains.append(sign * float((new - old)[written].double().mean()))
    findings.note(f"{name}: policy update", {"gains": gains, "norm of the gradient": metrics["grad_norm"]})
    findings.holds(f"{name}: the update moves every row's probability with its advantage", min(gains) > 0)


def _sampled(row: dict[str, Any], log_probs: Tensor, advantage: float) -> dict[str, Any]:
    """A row as GRPO has it after the rollout and its old log-probabilities."""
    response = row["loss_mask"].bool()
    ids, old = row["input_ids"], log_probs[row["loss_mask"].roll(-1).bool()]
    return row | {
        "prompts": ids[~response],
        "responses": ids[response],
        "response_mask": row["loss_mask"][response],
        "old_log_probs": old.float(),
        "advantages": torch.full_like(old, advantage, dtype=torch.float32),
    }


def _check_cost(findings: PartFindings, setting: Setting, trainer, sizes: small_qwen.Sizes) -> None:
    infer = trainer.training_client.infer_batch
    for tokens in (2 * sizes.tokens,) if setting.miniature else TOKENS:
        rows = small_qwen.rows(trainer.model_config.tokenizer, sizes, tokens // sizes.tokens)
        data = {way: engine.batch(trainer, rows, way == "masses") for way in ("plain", "masses")}
        steps = {way: partial(infer, data=of_way) for way, of_way in data.items()}
        ratio, memory = engine.compare(findings, setting, f"old log-probs, {tokens:,} tokens", steps)
        counts = not setting.miniature
        findings.at_most(f"old log-probs of {tokens:,} tokens: time with masses over without", 1.03, ratio, counts)
        findings.at_most(f"old log-probs of {tokens:,} tokens: peak memory, likewise", 1.01, memory, counts)
