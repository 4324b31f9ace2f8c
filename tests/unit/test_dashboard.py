"""The shipped Grafana dashboard and the curves that the trainer exports name the same things."""

import json
import re
from pathlib import Path

import torch

import avar_rl.verl_plugin
from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse
from avar_rl.verl_plugin.watch.grafana import PANELS, dashboard
from avar_rl.verl_plugin.watch.metrics import reward_metrics
from avar_rl.verl_plugin.watch.ray_metrics import gauge_of
from rewards.combine import Score, Values
from rewards.sample import AttentionSample, Masses, Tokens

SHIPPED = Path(avar_rl.verl_plugin.__file__).parent / "watch" / "dashboards" / "avar_grafana.json"
OURS = ("reward", "attention", "blind")  # families of our own curves; the others are verl's


def queries() -> list[tuple[str, str]]:
    """Gauge and pattern of every query in the shipped file."""
    panels = json.loads(SHIPPED.read_text())["panels"]
    found = [re.fullmatch(r'ray_(\w+)\{curve=~"(.+)", run="\$run"\}', t["expr"]) for p in panels for t in p["targets"]]
    assert all(found)
    return [(match[1], match[2]) for match in found if match is not None]


def shows(query: tuple[str, str], metric: str) -> bool:
    gauge, curve = gauge_of(metric)
    return gauge == query[0] and re.fullmatch(query[1], curve) is not None  # Prometheus anchors its patterns


def exported() -> dict[str, float]:
    """Every curve that rewards can give: gated, undecided, with masses and a blind pass, with spread in all things."""

    def one(uid: str, accuracy: float, visual: float, tokens: int) -> ScoredResponse:
        values = Values({"accuracy": accuracy, "visual": visual}, frozenset() if accuracy else frozenset({"visual"}))
        weighted = {"accuracy": accuracy, "visual": 0.3 * visual * accuracy}
        masses = Masses(torch.rand(tokens, 4), torch.rand(tokens, 4))
        score = Score(accuracy * (1 + 0.3 * visual), weighted)
        measured = Tokens(*torch.rand(3, tokens))
        sample = AttentionSample("q", "", "g", masses=masses, tokens=measured)
        return ScoredResponse(uid, uid, sample, torch.arange(tokens), values, score)

    responses = (one("a", 1.0, 0.5, 3), one("a", 0.0, 0.4, 4), one("b", 1.0, 0.8, 9))
    weights = {"accuracy": 1.0, "visual": 0.3}
    return reward_metrics(ScoredBatch(1, responses, weights, {"visual": "accuracy"}, layers=4, blind=True))


def test_the_shipped_file_is_what_the_generator_prints():
    assert json.loads(SHIPPED.read_text()) == dashboard()


def test_every_curve_of_ours_is_in_a_panel_and_every_panel_has_one():
    curves = exported()
    assert {"reward_raw/visual/std", "reward_check/visual_vs_length", "attention/image_mass_late"} <= curves.keys()
    assert [metric for metric in curves if not any(shows(query, metric) for query in queries())] == []
    ours = [query for query in queries() if query[0].removeprefix("avar_").split("_")[0] in OURS]
    assert len(ours) > 8 and [query for query in ours if not any(shows(query, metric) for metric in curves)] == []


def test_a_curve_of_one_family_is_not_taken_for_another():
    assert gauge_of("reward_raw/visual/mean") == ("avar_reward_raw", "visual/mean")
    assert gauge_of("timing_per_token_ms/gen") == ("avar_timing_per_token_ms", "gen")
    assert gauge_of("actor/loss@1/x") == ("avar_actor", "loss@1/x")
    assert gauge_of("odd.name-1/x") == ("avar_odd_name_1", "x")
    assert not shows(("avar_reward", "[^/]+"), "reward_raw/visual/mean")


def test_panels_do_not_overlap_and_fill_the_width():
    cells = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + 8)}
        assert not own & cells and max(x for x, _ in own) < 24
        cells |= own
    assert len({panel.title for panel in PANELS}) == len(PANELS)
