"""Part 3: the guided cold start on verl's own engine, at the width of a 7B model.

Masses against eager attention maps; what the logits are computed from, with recording on and off; time and memory of
the guided step beside the plain one, from 4k to 16k packed tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_check import engine, small_qwen
from benchmarks.gpu_check.eager import response_masses
from benchmarks.gpu_check.results import PartFindings, Setting

# Shapes: N rows, L layers, S = 2 spans (image, system), Q queries.

TOKENS = (4096, 8192, 16384)


def run(findings: PartFindings, setting: Setting) -> None:
    tokenizer, sizes = engine.prepare(setting)
    rows = small_qwen.rows(tokenizer, sizes, 2)
    if not setting.miniature:  # whole maps of 28 heads
        rows = [_shortened(row, 1280) for row in rows]
    maps = {
        dtype: response_masses(setting.work / "model", rows, tokenizer, dtype, setting.device)
        for dtype in (torch.float32, torch.bfloat16)
    }
    trainer = engine.start(findings, setting, ["model.use_fused_kernels=true"])
    check_masses(findings, recorded_masses(trainer, rows), maps)
    _check_hidden_states(findings, trainer, rows)
    _check_cost(findings, setting, trainer, sizes)


def check_masses(findings: PartFindings, recorded: list[Tensor], maps: dict[torch.dtype, list[Tensor]]) -> None:
    """The engine's masses against those of eager float32, and how far eager bfloat16 is from them; each (S, L, Q)."""
    for span, name in enumerate(("image", "system")):
        ours, torchs = (
            torch.cat([(a[span] - b[span]).flatten() for a, b in zip(masses, maps[torch.float32], strict=True)])
            for masses in (recorded, maps[torch.bfloat16])
        )
        figures = {"largest": float(ours.abs().max()), "root mean square": _rms(ours)}
        figures |= {"largest, bf16": float(torchs.abs().max()), "root mean square, bf16": _rms(torchs)}
        findings.note(f"{name} mass: error against eager float32", figures)
        findings.at_most(f"{name} mass: error over that of eager bf16 maps", 2.0, _rms(ours) / _rms(torchs))


def recorded_masses(trainer, rows: list[dict[str, Any]]) -> list[Tensor]:
    """Of each row, float32 (S, L, Q): what the engine records in the old-log-prob pass, of its response's tokens."""
    from avar_rl.verl_plugin.forward.request import MASS_COLUMNS

    output = trainer.training_client.infer_batch(data=engine.batch(trainer, rows, masses=True))
    layers = trainer.model_config.hf_config.text_config.num_hidden_layers
    found = []
    for index, row in enumerate(rows):
        flats = [output[name].unbind()[index].reshape(-1, layers).T for name in MASS_COLUMNS[:2]]
        found.append(torch.stack(flats)[..., row["loss_mask"].bool()].cpu())
    return found


def _check_hidden_states(findings: PartFindings, trainer, rows: list[dict[str, Any]]) -> None:
    """The last hidden states, whose fixed function the logits are, and the loss of language, in a training pass."""
    seen: list[Tensor] = []
    norm = trainer.engine.module.model.language_model.norm
    handle = norm.register_forward_hook(lambda module, args, output: seen.append(output.detach().clone()))
    losses = {}
    for way, loss in _losses(trainer).items():
        trainer.engine.guidance = trainer.guidance if way == "guided" else None
        with trainer.engine.train_mode():
            output = trainer.engine.forward_backward_batch(engine.batch(trainer, rows), loss)
            trainer.engine.optimizer_zero_grad()
        losses[way] = output["loss"][0] if way == "plain" else output["metrics"]["train/loss_lm"].aggregate()
    handle.remove()
    plain, guided = seen
    findings.holds("training pass: hidden states bit-identical with recording on and off", torch.equal(plain, guided))
    findings.note("training pass: loss of language", {way: float(loss) for way, loss in losses.items()})


def _check_cost(findings: PartFindings, setting: Setting, trainer, sizes: small_qwen.Sizes) -> None:
    for tokens in (2 * sizes.tokens,) if setting.miniature else TOKENS:
        rows = small_qwen.rows(trainer.model_config.tokenizer, sizes, tokens // sizes.tokens)
        steps = {way: partial(_step, trainer, engine.batch(trainer, rows), way) for way in ("plain", "guided")}
        ratio, memory = engine.compare(findings, setting, f"SFT step, {tokens:,} tokens", steps)
        counts = not setting.miniature
        findings.at_most(f"guided step of {tokens:,} tokens: time over the plain step's", 1.03, ratio, counts)
        findings.at_most(f"guided step of {tokens:,} tokens: peak memory over the plain step's", 1.01, memory, counts)


def _step(trainer, data, way: str) -> None:
    """A whole step of verl's trainer, with the optimizer's."""
    trainer.engine.guidance = trainer.guidance if way == "guided" else None
    trainer.training_client.set_loss_fn(_losses(trainer)[way])
    trainer.training_client.train_batch(data=data)


def _losses(trainer) -> dict[str, Any]:
    """verl's loss of language, and ours; verl's trainer, too, gives them no configuration."""
    from verl.workers.utils.losses import sft_loss

    from avar_rl.verl_plugin.sft.trainer import guided_sft_loss

    plain: Any = sft_loss
    guided = partial(guided_sft_loss, config=None, guidance=trainer.guidance)
    return {"plain": partial(plain, config=None), "guided": guided}


def _shortened(row: dict[str, Any], tokens: int) -> dict[str, Any]:
    """A row that ends after `tokens` tokens."""
    return {name: value if isinstance(value, dict) else value[..., :tokens] for name, value in row.items()}


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())
