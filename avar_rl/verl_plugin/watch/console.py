"""A few short lines a step: what people look for while a run goes by. The file and TensorBoard logs hold the rest."""

from collections.abc import Mapping
from typing import SupportsFloat

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
    "reward/groups_without_accuracy_spread": "flat groups {:.2f}",
    "reward_rate/undecided": "undecided {:.3f}",
    "reward_rate/failed": "failed {:.3f}",
    "reward_rate/missing": "missing {:.3f}",
    "attention/image_mass": "image {:.3f}",
    "attention/system_mass": "system {:.3f}",
    "blind/dependence": "dependence {:+.3f}",
    "actor/entropy": "entropy {:.3f}",
    "actor/kl_loss": "kl {:.4f}",
    "response_length/mean": "length {:.1f}",
    "timing_s/gen": "gen {:.1f} s",
    "timing_s/step": "step {:.1f} s",
}


def line(step: int, metrics: Mapping[str, SupportsFloat], shown: Mapping[str, str]) -> str:
    """A step's line, `step 3 | loss 1.2345 | …`.

    Args:
        metrics: the step's curves, by the trackers' names.
        shown: the format of each curve to show (`SFT`, `GRPO`); those that were not measured are left out.
    """
    parts = [text.format(float(metrics[name])) for name, text in shown.items() if name in metrics]
    return " | ".join([f"step {step}", *parts])


def rewards(metrics: Mapping[str, float], weights: Mapping[str, float]) -> str:
    """A line for each part of the reward, from the curves of `watch.metrics`.

    Such as `  visual: 0.51 ±0.04 [0.42, 0.60] | gated 0.38 | x 0.3 -> 0.09 ±0.07 [0.00, 0.18] | …`.
    """
    lines = []
    for name, weight in weights.items():
        shown = [_spread(metrics, f"reward_raw/{name}")]
        for rate, text in (("gated", "gated {:.2f}"), ("not_applicable", "not applicable {:.2f}")):
            if value := metrics.get(f"reward_rate/{name}/{rate}"):
                shown.append(text.format(value))
        shown.append(f"x {weight:g} -> {_spread(metrics, f'reward_weighted/{name}')}")
        checks = {other: metrics.get(f"reward_check/{name}_vs_{other}") for other in ("length", "accuracy")}
        shown += [f"r({other}) {value:+.2f}" for other, value in checks.items() if value is not None]
        lines.append(f"  {name}: " + " | ".join(shown))
    return "\n".join(lines)


def _spread(metrics: Mapping[str, float], prefix: str) -> str:
    if f"{prefix}/mean" not in metrics:
        return "none"
    mean, std, low, high = (metrics[f"{prefix}/{name}"] for name in ("mean", "std", "min", "max"))
    return f"{mean:.3f} ±{std:.3f} [{low:.2f}, {high:.2f}]"
