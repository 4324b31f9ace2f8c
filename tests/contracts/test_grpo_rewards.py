"""From what verl carries back to totals, advantages and curves, by hand."""

import json
import math

import numpy as np
import pytest
import torch

from avar_rl.verl_plugin import environment

environment.prepare("cpu")  # before anything imports verl

from avar_rl.verl_plugin import advantages, console  # noqa: E402
from avar_rl.verl_plugin.reward_manager import SAMPLE_KEY, _sample, _shipped  # noqa: E402
from avar_rl.verl_plugin.reward_metrics import correlation, reward_metrics  # noqa: E402
from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse  # noqa: E402
from avar_rl.verl_plugin.scoring import Arrived, score  # noqa: E402
from avar_rl.verl_plugin.settings import GroupSettings  # noqa: E402
from rewards.combine import RewardError, RewardSet, Values, parse_terms  # noqa: E402
from rewards.sample import Sample  # noqa: E402

SET = RewardSet(parse_terms({"accuracy": 1.0, "visual": {"weight": 0.3, "mode": "share"}, "format": 0.1}))
TEXT = RewardSet(parse_terms({"accuracy": 1.0, "format": 0.1}))


def info(values: Values, error: str = "", gold: str = "6") -> dict:
    sample = Sample("How many?", "", gold, {"data_source": "tiny"}, "row 3", image_sizes=((112, 112),))
    return {"reward_extra_info": _shipped(sample, values, error)}


def arrived(uid: str, values: Values, shares=(0.5, 0.5), mask=None, error: str = "", session: int = 0) -> Arrived:
    """A response whose tokens have these image shares in both of two layers; the system has the rest."""
    image = torch.tensor(shares)[:, None].expand(-1, 2)
    mask = torch.ones(len(shares), dtype=torch.bool) if mask is None else torch.tensor(mask).bool()
    ids = torch.arange(len(shares))
    return Arrived(f"{uid}_{session}_0", uid, "text", ids, mask, info(values, error), image, 1 - image)


RIGHT, WRONG = Values({"accuracy": 1.0, "format": 1.0}), Values({"accuracy": 0.0, "format": 1.0})


def test_a_row_of_verl_becomes_a_sample():
    picture = {"type": "image", "image": _picture(30, 20)}
    turn = {"role": "user", "content": [picture, {"type": "text", "text": "How many?"}]}
    row = {
        "raw_prompt": np.array([turn], dtype=object),
        "reward_model": {"style": "rule", "ground_truth": "6"},
        "extra_info": {"id": "train-7", "index": np.int64(7)},
        "data_source": np.str_("tiny"),
        "difficulty": np.float64(0.5),  # a column of the user's own
        "uid": "u",
        "response_len": np.int64(3),
    }
    sample = _sample(row, "<answer>6</answer>", 3, 80)
    assert (sample.question, sample.gold, sample.row_id) == ("How many?", "6", "train-7")
    assert sample.image_sizes == ((30, 20),)
    assert (sample.response_tokens, sample.max_response_tokens) == (3, 80)
    extra = {"id": "train-7", "index": 7}
    assert sample.row == {"data_source": "tiny", "difficulty": 0.5, "extra_info": extra}
    assert type(sample.row["difficulty"]) is float


def _picture(width: int, height: int):
    from PIL import Image

    return Image.new("RGB", (width, height))


def test_what_verl_reads_of_a_score_are_numbers_and_text():
    shipped = _shipped(Sample("q", "r", "6"), Values({"accuracy": 1.0, "format": 0.0}, frozenset({"format"})), "")
    assert (shipped["accuracy"], shipped["format"]) == (1.0, 0.0)
    assert json.loads(shipped[SAMPLE_KEY])["closed"] == ["format"]
    # undecided, or a reward failed: no number that could equal the others of the group
    assert math.isnan(_shipped(Sample("q", "r", "6"), Values({"accuracy": None}), "")["accuracy"])
    assert math.isnan(_shipped(Sample("q", "r", "6"), Values(), "it broke")["accuracy"])


def test_parts_are_combined_and_masses_are_those_of_the_policys_own_tokens():
    batch = score(
        [arrived("a", RIGHT, (0.4, 0.8, 0.9), mask=[1, 1, 0]), arrived("a", WRONG, (0.5, 0.5))], SET, step=4, limit=80
    )
    first, second = batch.responses
    assert (batch.step, batch.layers, batch.gates) == (4, 2, {"visual": "accuracy"})
    # (0.4 + 0.8) / 2; the third token is a tool's: 1 + 0.3 * 0.6 + 0.1
    assert first.raw["visual"] == pytest.approx(0.6) and first.total == pytest.approx(1.28)
    assert first.token_ids_T.tolist() == [0, 1] and first.image_mass_TL.shape == (2, 2)
    # wrong: the gate is closed; the ungated value is kept
    assert second.raw["visual"] == pytest.approx(0.5) and second.closed == {"visual"}
    assert second.total == pytest.approx(0.1) and second.weighted["visual"] == 0.0
    assert (first.row_id, first.gold, first.question, first.row) == ("row 3", "6", "How many?", {"data_source": "tiny"})
    assert first.image_sizes == ((112, 112),)


def test_rank_compares_within_the_group_only():
    ranked = RewardSet(parse_terms({"accuracy": 1.0, "visual": {"weight": 1.0, "mode": "rank"}}))
    rows = [arrived("a", RIGHT, (0.2,)), arrived("b", RIGHT, (0.9,)), arrived("a", RIGHT, (0.3,)), arrived("b", RIGHT)]
    assert [r.raw["visual"] for r in score(rows, ranked, step=1).responses] == [0.0, 1.0, 1.0, 0.0]


def test_without_attention_rewards_nothing_needs_masses():
    bare = Arrived("a_0_0", "a", "text", torch.arange(2), torch.ones(2).bool(), info(RIGHT))
    batch = score([bare], TEXT, step=1)
    assert batch.layers == 0 and batch.responses[0].image_mass_TL is None
    assert batch.responses[0].total == pytest.approx(1.1)


def test_a_response_that_our_manager_did_not_score_stops_training():
    bare = Arrived("a_0_0", "a", "text", torch.arange(2), torch.ones(2).bool(), {"reward_extra_info": {"acc": 1.0}})
    with pytest.raises(RuntimeError, match="a_0_0 was not scored by avar_rl's reward manager: reward.reward_manager"):
        score([bare], TEXT, step=1)


def test_a_recording_that_yields_nothing_stops_training():
    row = arrived("a", RIGHT)
    zero = torch.zeros(2, 2)
    bare = Arrived(row.key, "a", "text", row.token_ids_T, row.mask_T, row.extra_fields, zero, zero)
    with pytest.raises(RuntimeError, match="recorded no span masses at all"):
        score([bare], SET, step=1)


def test_a_failed_reward_stops_the_run_with_its_text_or_masks_its_response():
    rows = [arrived("a", RIGHT), arrived("a", Values(), error="Traceback …\nreward own failed on row 3: it broke")]
    with pytest.raises(RewardError) as error:
        score(rows, SET, step=2)
    assert str(error.value).startswith("1 responses of step 2 could not be scored")
    assert str(error.value).splitlines()[-1] == "reward own failed on row 3: it broke"
    right, failed = score(rows, SET, step=2, on_error="mask").responses
    assert failed.masked and "it broke" in failed.error and failed.total == 0.0
    assert not right.masked and right.total == pytest.approx(1.25)


def test_an_attention_reward_that_fails_is_treated_alike():
    broken = arrived("a", RIGHT, (0.5, math.nan))
    with pytest.raises(RewardError, match="reward visual failed on row row 3: ValueError: a token's visual score"):
        score([broken, arrived("a", RIGHT)], SET, step=1)
    batch = score([broken, arrived("a", RIGHT)], SET, step=1, on_error="mask")
    assert [response.masked for response in batch.responses] == [True, False]


def test_an_undecided_accuracy_is_masked_and_counted():
    rows = [arrived("a", RIGHT), arrived("a", Values({"accuracy": None, "format": 1.0})), arrived("a", WRONG)]
    batch = score(rows, SET, step=1)
    assert [response.masked for response in batch.responses] == [False, True, False]
    metrics = reward_metrics(batch)
    assert metrics["reward_rate/undecided"] == pytest.approx(1 / 3) and metrics["reward/accuracy"] == 0.5
    assert metrics["reward_rate/failed"] == 0.0


def response(uid: str, total: float = 0.0, accuracy: float | None = 1.0, masked=False, length=2, **parts):
    """By its raw parts; weights are 1, nothing is gated unless `closed` says so."""
    closed = frozenset(parts.pop("closed", ()))
    raw = {"accuracy": accuracy, **parts}
    weighted = {name: 0.0 if name in closed else value or 0.0 for name, value in raw.items()}
    return ScoredResponse(
        key=uid, uid=uid, row_id="", row={}, question="", gold="", image_sizes=(), response="",
        token_ids_T=torch.zeros(length), raw=raw, weighted=weighted, closed=closed, total=total, masked=masked,
    )  # fmt: skip


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
    from dataclasses import replace

    return replace(r, weighted={name: weights.get(name, 1.0) * value for name, value in r.weighted.items()})


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


def test_masses_by_layer_range():
    from dataclasses import replace

    # 7 layers in thirds of 3, 2, 2; two responses of different length: the mean of each, then of both
    image = torch.tensor([[0.1, 0.1, 0.1, 0.2, 0.2, 0.4, 0.4]])
    rows = [replace(response("a"), image_mass_TL=image * k, system_mass_TL=image.repeat(3, 1)) for k in (1, 3)]
    none = replace(response("a"), image_mass_TL=image[:0], system_mass_TL=image[:0])
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
