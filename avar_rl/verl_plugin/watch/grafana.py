"""The Grafana dashboard of a GRPO run: `python -m avar_rl.verl_plugin.watch.grafana` prints it.

Panels name curves by pattern, so a reward that somebody drops in appears beside the shipped ones.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from avar_rl.verl_plugin.watch.ray_metrics import gauge_of

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One chart. curves: `family/pattern` each, the pattern a regular expression on the rest of the trackers' names."""

    title: str
    curves: tuple[str, ...]
    help: str
    unit: str = "short"
    wide: bool = False


PANELS = (
    Panel("Reward", ("reward/total|accuracy",), "Means over the step's responses.", wide=True),
    Panel("Parts", ("reward/[^/]+",), "Mean of each part behind its gate, without weight; flat groups; total."),
    Panel("What each part adds", ("reward_weighted/[^/]+/mean",), "Weight x value: the parts add up to the total."),
    Panel("Parts as returned", ("reward_raw/[^/]+/mean",), "Before gate and weight."),
    Panel("Range as returned", ("reward_raw/[^/]+/(min|max)",), "Lowest and highest response."),
    Panel("Range of what is added", ("reward_weighted/[^/]+/(min|max)",), "Lowest and highest response."),
    Panel("Spread as returned", ("reward_raw/[^/]+/std",), "Standard deviation over the step's responses."),
    Panel("Spread of what is added", ("reward_weighted/[^/]+/std",), "Standard deviation over the step's responses."),
    Panel("Gated, not applicable, undecided, failed", ("reward_rate/.+",), "Shares of the responses.", "percentunit"),
    Panel(
        "Reward hacking?",
        ("reward_check/.+",),
        "Correlation of a part with response length and accuracy. A visual part that rises with length is being gamed.",
    ),
    Panel("Attention mass", ("attention/.+",), "Mean over response tokens; early, middle, late: thirds of the layers."),
    Panel(
        "Dependence on the image",
        ("blind/dependence(_early|_middle|_late)?",),
        "Nats that a response token loses by masked images (avar.blind); early, middle, late: thirds of the response.",
    ),
    Panel(
        "Attention and dependence",
        ("blind/dependence_vs_attention|not_applicable",),
        "Correlation of a token's dependence with its image mass; share of responses without an image.",
    ),
    Panel("Response length", ("response_length/mean|max",), "Tokens."),
    Panel(
        "Policy",
        ("actor/entropy|kl_loss|grad_norm|pg_clipfrac|loss_.+",),
        "Entropy, KL, gradient norm, share clipped; weighted terms of avar.losses.",
    ),
    Panel(
        "Seconds", ("timing_s/step|gen|old_log_prob|blind_log_prob|ref|update_actor",), "Of a step and its parts.", "s"
    ),
    Panel("Step", ("training/global_step",), "Steps done."),
)


def query(curves: str) -> str:
    """The PromQL query for the curves that a panel's `family/pattern` names."""
    gauge, pattern = gauge_of(curves)
    return f'ray_{gauge}{{curve=~"{pattern}", run="$run"}}'


def dashboard() -> dict:
    """The dashboard as Grafana imports it."""
    panels, x, y = [], 0, 0
    for number, panel in enumerate(PANELS, 1):
        width = 24 if panel.wide else 8
        if x + width > 24:
            x, y = 0, y + 8
        panels.append(_panel(number, panel, {"x": x, "y": y, "w": width, "h": 8}))
        x += width
    return {
        "title": "AVAR GRPO",
        "uid": "avar-grpo",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_data_source_variable(), _run_variable()]},
        "panels": panels,
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict:
    targets = [
        {"refId": chr(65 + i), "datasource": DATA_SOURCE, "expr": query(curve), "legendFormat": "{{curve}}"}
        for i, curve in enumerate(panel.curves)
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": DATA_SOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "custom": {"lineWidth": 2, "showPoints": "never", "spanNulls": True}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def _data_source_variable() -> dict:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _run_variable() -> dict:
    source = "label_values(ray_avar_training, run)"
    return {
        "name": "run",
        "label": "Run",
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"query": source, "refId": "run"},
        "refresh": 2,
    }


def main(argv: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(prog="avar dashboard", description=__doc__).parse_args(argv)
    json.dump(dashboard(), sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
