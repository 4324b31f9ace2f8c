"""From scored responses to groups without a signal, advantages by part and curves, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from avar_rl.verl_plugin.config.settings import GroupSettings  # noqa: E402
from avar_rl.verl_plugin.grpo import advantages  # noqa: E402
from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse  # noqa: E402
from avar_rl.verl_plugin.watch import console  # noqa: E402
from avar_rl.verl_plugin.watch.metrics import correlation, reward_metrics  # noqa: E402
from rewards.combine import Score, Values  # noqa: E402
from rewards.sample import AttentionSample, Masses, Tokens  # noqa: E402


def response(uid: str, total: float = 0.0, accuracy: float | None = 1.0, masked=False, length=2, **parts):
    """By its raw parts; weights are 1, nothing is gated unless `closed` says so."""
    closed = frozenset(parts.pop("closed", ()))
    raw = {"accuracy": accuracy, **parts}
    weighted = {name: 0.0 if name in closed else value or 0.0 for name, value in raw.items()}
    values, score = Values(raw, closed), Score(total, weighted)
    return ScoredResponse(uid, uid, AttentionSample("", "", ""), torch.zeros(length), values, score, masked=masked)


def test_groups_without_a_signal_get_exactly_no_advantage():
    batch = ScoredBatch(
        1,
        (
            response("a", 1.1), response("a", 1.1), response("b", 1.1), response("b", 0.0, accuracy=0.0),
            response("c", 0.3), response("d", 1.0), response("d", 7.0, masked=True),
        ),
    )  # fmt: skip
    assert advantages.silent_groups(batch, GroupSettings()) == {
        "a",
        "c",
        "d",
    }  # equal; alone; alone but for a masked one
    rows = [torch.full((2,), value) for value in (0.1, -0.1, 0.7, -0.7, 0.15, 1.0, 2.0)]
    found = advantages.silenced(rows, batch, {"a", "c"})
    assert [row.tolist() for row in found[:2]] == [[0.0, 0.0]] * 2 and found[2] is rows[2]
    assert found[5] is rows[5] and found[6].tolist() == [0.0, 0.0]  # masked


def test_the_smallest_spread_keeps_its_advantages():
    batch = ScoredBatch(1, (response("a", 1.0), response("a", float(np.nextafter(1.0, 2.0)))))
    assert advantages.silent_groups(batch, GroupSettings()) == set()


def test_groups_with_uniform_accuracy_are_masked_by_option():
    batch = ScoredBatch(
        1, (response("a", 1.2), response("a", 1.3), response("b", 1.0), response("b", 0.0, accuracy=0.0))
    )
    assert advantages.silent_groups(batch, GroupSettings()) == set()
    assert advantages.silent_groups(batch, GroupSettings(mask_uniform_accuracy=True)) == {"a"}


def test_equal_rewards_would_give_advantages_without_it():
    """Why: verl's own GRPO advantage of eight equal rewards in fp32."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    rewards = torch.full((8, 1), 1.3)  # measured: advantages of 0.106
    found, _ = compute_grpo_outcome_advantage(rewards, torch.ones(8, 1), np.array(["a"] * 8, dtype=object))
    assert 0 < float(found.abs().max()) < 0.2


def gdpo(batch: ScoredBatch, length: int = 1) -> list[float]:
    masks = [torch.ones(length) for _ in batch.responses]
    return [round(float(row[0]), 3) for row in advantages.by_part(batch, masks, by_std=True)]


def test_parts_are_normalised_on_their_own():
    """Two groups of two. Each part with a spread gives +-1/sqrt(2) (std of a pair, n - 1), whatever its scale."""
    rows = (
        response("a", accuracy=1.0, visual=0.2), response("a", accuracy=0.0, visual=0.2),  # accuracy differs
        response("b", accuracy=1.0, visual=0.51), response("b", accuracy=1.0, visual=0.50),  # visual differs, by little
    )  # fmt: skip
    equal = gdpo(ScoredBatch(1, rows, {"accuracy": 1.0, "visual": 1.0}))
    # s, -s, s, -s with s = 0.7071 before whitening by mean 0 and std (unbiased, 4 values) s * sqrt(4/3): 0.866
    assert equal == [0.866, -0.866, 0.866, -0.866]
    # weight 0.5 on the visual part halves group b's: s, -s, s/2, -s/2; std = s * sqrt(2.5 / 3) = s * 0.9129
    half = ScoredBatch(1, tuple(_weighted(r, visual=0.5) for r in rows), {"accuracy": 1.0, "visual": 0.5})
    assert gdpo(half) == [1.095, -1.095, 0.548, -0.548]


def _weighted(r: ScoredResponse, **weights: float) -> ScoredResponse:
    weighted = {name: weights.get(name, 1.0) * value for name, value in r.score.weighted.items()}
    return replace(r, score=Score(r.total, weighted))


def test_a_part_without_spread_adds_exactly_nothing_and_masked_rows_take_no_part():
    rows = [response("a", accuracy=1.3, visual=v) for v in (0.1, 0.2, 0.3, 0.4)]
    with_flat = gdpo(ScoredBatch(1, tuple(rows), {"accuracy": 1.0, "visual": 1.0}))
    without = gdpo(ScoredBatch(1, tuple(rows), {"visual": 1.0}))
    assert with_flat == without
    masked = response("a", accuracy=None, masked=True, visual=9.0)
    assert gdpo(ScoredBatch(1, (*rows, masked), {"visual": 1.0})) == [*without, 0.0]


def test_advantages_by_part_have_the_shape_of_their_response():
    batch = ScoredBatch(1, (response("a", visual=0.1), response("a", visual=0.2)), {"visual": 1.0})
    rows = advantages.by_part(batch, [torch.ones(3), torch.tensor([1.0, 0.0])], by_std=True)
    assert [len(row) for row in rows] == [3, 2] and float(rows[1][1]) == 0.0


BATCH = ScoredBatch(
    3,
    (
        response("a", 1.5, accuracy=1.0, visual=0.5, length=4),
        response("a", 0.0, accuracy=0.0, visual=0.3, closed=["visual"]),
        response("b", 1.25, accuracy=1.0, visual=0.25, length=1),
        response("b", 1.75, accuracy=1.0, visual=0.75, length=5),
        response("b", 9.0, accuracy=None, masked=True, visual=5.0),
    ),
    {"accuracy": 1.0, "visual": 1.0},
    {"visual": "accuracy"},
)  # fmt: skip


def test_every_part_before_and_after_gate_and_weight():
    metrics = reward_metrics(BATCH)
    assert metrics["reward/accuracy"] == 0.75 and metrics["reward/total"] == 1.125  # (1.5 + 0 + 1.25 + 1.75) / 4
    assert metrics["reward_raw/visual/mean"] == 0.45 and metrics["reward_raw/visual/min"] == 0.25
    assert metrics["reward_raw/visual/max"] == 0.75
    # gated: 0.5, 0, 0.25, 0.75; deviations from 0.375: 0.125, 0.375, 0.125, 0.375, squares' mean 0.078125
    assert metrics["reward/visual"] == metrics["reward_weighted/visual/mean"] == 0.375
    assert metrics["reward_weighted/visual/std"] == pytest.approx(math.sqrt(0.078125))
    assert metrics["reward_weighted/total/max"] == 1.75
    assert metrics["reward_rate/visual/gated"] == 0.25 and metrics["reward/visual_of_correct"] == 0.5
    assert metrics["reward/groups_without_accuracy_spread"] == 0.5  # group b: 1, 1 (and a masked one)
    assert metrics["reward_rate/undecided"] == 0.2  # 1 of 5
    assert "attention/image_mass" not in metrics


def test_correlations_show_what_a_reward_follows():
    metrics = reward_metrics(BATCH)
    values, lengths, right = [0.5, 0.3, 0.25, 0.75], [4, 2, 1, 5], [1, 0, 1, 1]
    assert metrics["reward_check/visual_vs_length"] == pytest.approx(np.corrcoef(values, lengths)[0, 1])
    assert metrics["reward_check/visual_vs_accuracy"] == pytest.approx(np.corrcoef(values, right)[0, 1])
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])) == pytest.approx(1.0)
    assert correlation(np.array([1.0, 1.0]), np.array([2.0, 4.0])) is None  # no spread, no correlation
    alike = ScoredBatch(1, (response("a", visual=0.5), response("a", visual=0.25)), {"accuracy": 1.0, "visual": 1.0})
    assert not [name for name in reward_metrics(alike) if name.startswith("reward_check")]  # one length, one accuracy


def test_not_applicable_is_neither_zero_nor_gated():
    batch = ScoredBatch(1, (response("a", own=None), response("a", own=0.5)), {"own": 1.0})
    metrics = reward_metrics(batch)
    assert metrics["reward_rate/own/not_applicable"] == 0.5 and metrics["reward_raw/own/mean"] == 0.5
    assert metrics["reward/own"] == 0.25  # what reaches the total


def with_masses(masses: Masses) -> ScoredResponse:
    return replace(response("a"), sample=AttentionSample("", "", "", masses=masses))


def test_masses_by_layer_range():
    # 7 layers in thirds of 3, 2, 2; two responses of different length: the mean of each, then of both
    image = torch.tensor([[0.1, 0.1, 0.1, 0.2, 0.2, 0.4, 0.4]])
    rows = [with_masses(Masses(image * k, image.repeat(3, 1))) for k in (1, 3)]
    none = with_masses(Masses(image[:0], image[:0]))
    metrics = reward_metrics(ScoredBatch(1, (*rows, none), {"accuracy": 1.0}, layers=7))
    assert metrics["attention/image_mass_early"] == pytest.approx(0.2)  # (0.1 + 0.3) / 2
    assert metrics["attention/image_mass_middle"] == pytest.approx(0.4)
    assert metrics["attention/image_mass_late"] == pytest.approx(0.8)
    assert metrics["attention/image_mass"] == pytest.approx(2 * 1.5 / 7)
    assert metrics["attention/system_mass_late"] == pytest.approx(0.4)


def test_a_step_in_which_everything_is_masked_has_rates_only():
    batch = ScoredBatch(1, (response("a", accuracy=None, masked=True),), {"accuracy": 1.0})
    assert reward_metrics(batch) == {"reward_rate/undecided": 1.0, "reward_rate/failed": 0.0}


def test_the_console_says_what_each_part_did():
    lines = console.rewards(reward_metrics(BATCH), BATCH.weights).splitlines()
    assert lines[0] == "  accuracy: 0.750 ±0.433 [0.00, 1.00] | x 1 -> 0.750 ±0.433 [0.00, 1.00] | r(length) +0.37"
    assert lines[1].startswith(
        "  visual: 0.450 ±0.197 [0.25, 0.75] | gated 0.25 | x 1 -> 0.375 ±0.280 [0.00, 0.75] | r("
    )
    assert console.rewards({}, {"own": 0.2}) == "  own: none | x 0.2 -> none"


def dependent(dependence: list[float] | None, image: list[float] | None = None, accuracy: float = 1.0):
    """A response of tokens with this dependence (None: no image) and, in one layer, this image mass."""
    values = None if dependence is None else torch.tensor(dependence)
    masses = None if image is None else Masses(torch.tensor(image)[:, None], torch.ones(len(image), 1))
    tokens = Tokens(torch.zeros(1), torch.zeros(1), values)
    return replace(response("a", accuracy=accuracy), sample=AttentionSample("", "", "", masses=masses, tokens=tokens))


def blind_metrics(*responses: ScoredResponse, blind: bool = True) -> dict[str, float]:
    found = reward_metrics(ScoredBatch(1, responses, {"accuracy": 1.0}, layers=1, blind=blind))
    return {name.removeprefix("blind/"): value for name, value in found.items() if name.startswith("blind/")}


def test_dependence_by_thirds_of_the_response_and_against_attention():
    # thirds of four tokens are 2, 1, 1; of two tokens 1, 1, 0
    rows = (dependent([1.0, 3.0, 0.0, -2.0], [0.1, 0.3, 0.0, 0.2]), dependent([0.5, 1.5], [0.4, 0.4]), dependent(None))
    found = blind_metrics(*rows)
    assert found.pop("dependence_vs_attention") == pytest.approx(
        np.corrcoef([0.1, 0.3, 0.0, 0.2, 0.4, 0.4], [1, 3, 0, -2, 0.5, 1.5])[0, 1]
    )
    assert found == {
        "not_applicable": pytest.approx(1 / 3),
        "dependence": 0.75,  # of (1 + 3 + 0 - 2) / 4 = 0.5 and (0.5 + 1.5) / 2 = 1
        "dependence_early": 1.25,  # of (1 + 3) / 2 and 0.5
        "dependence_middle": 0.75,  # of 0 and 1.5
        "dependence_late": -2.0,  # of the first alone
    }


def test_without_a_blind_pass_an_image_or_masses_what_is_left_is_told():
    assert blind_metrics(dependent(None), blind=False) == {}
    assert blind_metrics(dependent(None), dependent([])) == {"not_applicable": 0.5}
    found = blind_metrics(dependent([1.0]), dependent([2.0], [0.5]), dependent([2.0], [0.5]))  # no spread in attention
    assert found == {
        "not_applicable": 0.0,
        "dependence": pytest.approx(5 / 3),
        "dependence_early": pytest.approx(5 / 3),
    }
