"""One short line a step: what people look for while a run goes by. The file and TensorBoard logs hold the rest."""

from collections.abc import Mapping

SFT = {
    "train/loss": "loss {:.4f}",
    "train/loss_lm": "lm {:.4f}",
    "train/loss_enhance": "enhance {:.3f}",
    "train/loss_suppress": "suppress {:.3f}",
    "train/grad_norm": "grad {:.2f}",
    "train/lr": "lr {:.1e}",
}
GRPO = {
    "reward/total": "reward {:.3f}",
    "reward/accuracy": "accuracy {:.3f}",
    "reward/format": "format {:.3f}",
    "reward/visual": "visual {:.3f}",
    "reward/groups_without_accuracy_spread": "flat groups {:.2f}",
    "attention/image_mass": "image {:.3f}",
    "attention/system_mass": "system {:.3f}",
    "actor/entropy": "entropy {:.3f}",
    "actor/kl_loss": "kl {:.4f}",
    "response_length/mean": "length {:.1f}",
    "timing_s/gen": "gen {:.1f} s",
    "timing_s/step": "step {:.1f} s",
}


def line(step: int, metrics: Mapping[str, float], shown: Mapping[str, str]) -> str:
    """`step 3 | loss 1.2345 | …` with those of `shown` that were measured."""
    parts = [text.format(float(metrics[name])) for name, text in shown.items() if name in metrics]
    return " | ".join([f"step {step}", *parts])
