"""Parts of the reward that have a weight, never change, and so train nothing: said once, with what is likely behind."""

from __future__ import annotations

from collections.abc import Mapping

STEPS = 10
_BEHIND = {
    ("accuracy", 0.0): "no answer is right: responses without <answer>…</answer> (or \\boxed), cut at "
    "data.max_response_length, or a task too hard for this model. Read some responses of the rollout record",
    ("accuracy", 1.0): "every answer is right: the data is too easy",
    ("format", 0.0): "no response is <think>…</think><answer>…</answer>: no cold start on that form, responses cut at "
    "data.max_response_length, or tags that are special tokens and leave the text when it is decoded",
    ("format", 1.0): "every response has the form already; harmless after a cold start",
    ("length", 0.0): "every response is short enough; harmless",
    ("repetition", 0.0): "nothing repeats itself; harmless",
}
_VISUAL = "every response has the same value: `clip` lies below all of them, or the recorded layers see no image"


class ConstantParts:
    """Watches the curves (`watch.metrics`) of the first STEPS steps of a process that have responses to judge."""

    def __init__(self, weights: Mapping[str, float], gates: Mapping[str, str]):
        """Watches the parts whose weight is above 0.

        Args:
            weights, gates: of every part, by name.
        """
        self._weights, self._gates = {name: weight for name, weight in weights.items() if weight > 0}, gates
        self._seen: dict[str, set[float]] = {name: set() for name in self._weights}
        self._closed, self._absent = set(self._weights), set(self._weights)  # what was so in every step
        self._left = STEPS

    def add(self, metrics: Mapping[str, float]) -> list[str]:
        """Takes a step's curves. At the last of the steps: a sentence for each part that was the same all the time."""
        if not self._left or "reward/total" not in metrics:  # without: every response of the step was masked
            return []
        self._left -= 1
        for name, seen in self._seen.items():
            seen |= {float(metrics[f"reward_weighted/{name}/{end}"]) for end in ("min", "max")}
            if metrics.get(f"reward_rate/{name}/gated", 0.0) < 1:
                self._closed.discard(name)
            if f"reward_raw/{name}/mean" in metrics:
                self._absent.discard(name)
        return [] if self._left else [self._sentence(name, seen) for name, seen in self._seen.items() if len(seen) == 1]

    def _sentence(self, name: str, seen: set[float]) -> str:
        (weighted,) = seen
        value = round(weighted / self._weights[name], 6)
        if name in self._closed:
            behind = f"its gate {self._gates[name]} was never open"
        elif name in self._absent:
            behind = "it applied to no response (it returned None: questions without an image, a judge without answers)"
        else:
            behind = _BEHIND.get((name, value), _VISUAL if name == "visual" else "it gives every response the same")
        return (
            f"the reward {name} (weight {self._weights[name]:g}) was {value:g} for every response of the first {STEPS} "
            f"steps, so it trains nothing; likely: {behind}"
        )
