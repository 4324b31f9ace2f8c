"""The pure parts of the GRPO trainer's reward, by hand; verl's filler rows must count nowhere."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from avar_rl.verl_plugin import environment

environment.prepare("cpu")  # before anything imports verl

from avar_rl.verl_plugin.grpo_trainer import (  # noqa: E402
    _add_to_last,
    _part_metrics,
    _text_parts,
    _visual_parts,
    _without_flat_groups,
)


def jagged(*rows) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def info(**parts) -> dict:
    return {"reward_extra_info": parts}


def test_text_parts_are_read_row_by_row_and_filler_rows_are_zero():
    extra = [info(accuracy=1.0, format=1.0), info(accuracy=0.0, format=1.0), info(accuracy=1.0, format=0.0), {}]
    parts = _text_parts(extra, np.array([True, True, True, False]))
    assert parts["accuracy"].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert parts["format"].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_a_filler_rows_own_score_does_not_count():
    # verl fills a batch up with copies of real rows
    parts = _text_parts([info(accuracy=1.0, format=1.0)] * 2, np.array([True, False]))
    assert parts["accuracy"].tolist() == [1.0, 0.0] and parts["format"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("unscored", [{}, info(format=1.0), info()])
def test_a_response_without_accuracy_stops_training(unscored):
    extra = [info(accuracy=1.0, format=1.0), unscored, unscored]
    with pytest.raises(RuntimeError, match="2 responses carry no accuracy.*reward.reward_manager"):
        _text_parts(extra, np.array([True, True, True]))


def masses(**changes) -> TensorDict:
    """Three rows of 5, 3 and 4 tokens, of which the last 3, 2 and 2 are the response; prompt tokens carry 9 as bait.

    The response of row 0 ends in a token that its mask leaves out.
    """
    fields = {
        "visual_score": jagged([9.0, 9.0, 2.0, 4.0, 9.0], [9.0, 1.0, 3.0], [9.0, 9.0, 0.5, 1.5]),
        "image_mass": jagged([9.0, 9.0, 0.2, 0.4, 9.0], [9.0, 0.1, 0.3], [9.0, 9.0, 0.0, 0.5]),
        "system_mass": jagged([9.0, 9.0, 0.1, 0.1, 9.0], [9.0, 0.1, 0.1], [9.0, 9.0, 0.2, 0.4]),
        "response_mask": jagged([1, 1, 0], [1, 1], [1, 1]),
    }
    return TensorDict(fields | changes, batch_size=3)


def test_the_visual_reward_is_the_mean_over_response_tokens_and_zero_for_a_wrong_answer():
    parts = _visual_parts(masses(), np.array([1.0, 0.0, 1.0]), np.array([True, True, True]))
    # row 0: (2 + 4) / 2 = 3, its masked token not counted; row 1 is wrong: 0, not (1 + 3) / 2; row 2: (0.5 + 1.5) / 2
    assert parts["visual"].tolist() == [3.0, 0.0, 1.0]
    # masses are measured for wrong answers, too: (0.2 + 0.4) / 2, (0.1 + 0.3) / 2, (0 + 0.5) / 2
    np.testing.assert_allclose(parts["image_mass"], [0.3, 0.2, 0.25], rtol=1e-6)
    np.testing.assert_allclose(parts["system_mass"], [0.1, 0.1, 0.3], rtol=1e-6)


def test_a_correct_response_without_image_scores_zero_and_stops_nothing():
    none = jagged([0.0] * 5, [0.0] * 3, [0.0] * 4)
    parts = _visual_parts(masses(visual_score=none, image_mass=none), np.ones(3), np.ones(3, dtype=bool))
    assert parts["visual"].tolist() == [0.0, 0.0, 0.0]


def test_a_filler_row_whose_mask_is_empty_has_no_masses():
    data = masses(response_mask=jagged([1, 1, 0], [0, 0], [1, 1]))
    parts = _visual_parts(data, np.array([1.0, 0.0, 1.0]), np.array([True, False, True]))
    assert parts["visual"].tolist() == [3.0, 0.0, 1.0] and parts["image_mass"][1] == 0.0


def test_a_recording_that_yields_nothing_stops_training():
    none = jagged([0.0] * 5, [0.0] * 3, [0.0] * 4)
    with pytest.raises(RuntimeError, match="recorded no span masses at all"):
        _visual_parts(masses(system_mass=none), np.ones(3), np.ones(3, dtype=bool))
    only_filler = jagged([0.0] * 5, [9.0, 0.1, 0.1], [0.0] * 4)
    with pytest.raises(RuntimeError, match="recorded no span masses at all"):
        _visual_parts(masses(system_mass=only_filler), np.ones(3), np.array([True, False, True]))


def test_masses_that_are_not_finite_stop_training():
    broken = jagged([9.0, 9.0, 2.0, float("nan"), 9.0], [9.0, 1.0, 3.0], [9.0, 9.0, 0.5, 1.5])
    with pytest.raises(ValueError, match="not finite"):
        _visual_parts(masses(visual_score=broken), np.ones(3), np.ones(3, dtype=bool))


def test_the_reward_lands_on_the_last_token_only():
    score = torch.tensor([0.0, 0.0, 1.1])
    assert torch.equal(_add_to_last(score, 0.5), torch.tensor([0.0, 0.0, 1.6]))
    assert torch.equal(score, torch.tensor([0.0, 0.0, 1.1]))  # verl's own tensor is not written to
    assert torch.equal(_add_to_last(torch.tensor([0.25]), 0.0), torch.tensor([0.25]))


PARTS = {
    "accuracy": np.array([1.0, 0.0, 1.0, 1.0, 0.0]),
    "format": np.array([1.0, 1.0, 0.0, 1.0, 0.0]),
    "visual": np.array([0.5, 0.0, 0.25, 0.75, 0.0]),
    "image_mass": np.array([0.2, 0.1, 0.2, 0.3, 0.0]),
    "total": np.array([1.25, 0.1, 1.0, 1.5, 0.0]),
}
UIDS = np.array(["a", "a", "b", "b", "a"])
REAL = np.array([True, True, True, True, False])


def test_one_curve_a_part_without_filler_rows():
    metrics = _part_metrics(PARTS, UIDS, REAL)
    assert metrics["reward/accuracy"] == 0.75  # 3 of 4
    assert metrics["reward/format"] == 0.75
    assert metrics["reward/visual"] == 0.375  # (0.5 + 0 + 0.25 + 0.75) / 4
    assert metrics["reward/visual_of_correct"] == 0.5  # (0.5 + 0.25 + 0.75) / 3
    assert metrics["attention/image_mass"] == pytest.approx(0.2)
    assert metrics["reward/total"] == 0.9625  # (1.25 + 0.1 + 1.0 + 1.5) / 4
    # group a has answers 1 and 0, group b 1 and 1
    assert metrics["reward/groups_without_accuracy_spread"] == 0.5


def test_a_filler_row_gives_no_group_a_spread():
    uids = np.array(["a", "a", "b", "b", "b"])  # the filler row, accuracy 0, belongs to the flat group b
    assert _part_metrics(PARTS, uids, REAL)["reward/groups_without_accuracy_spread"] == 0.5
    alone = np.array(["a", "a", "b", "b", "c"])  # nor is it a group of its own
    assert _part_metrics(PARTS, alone, REAL)["reward/groups_without_accuracy_spread"] == 0.5


def test_where_all_answers_are_wrong_every_group_is_flat():
    wrong = PARTS | {"accuracy": np.zeros(5)}
    metrics = _part_metrics(wrong, UIDS, REAL)
    assert metrics["reward/groups_without_accuracy_spread"] == 1.0
    assert "reward/visual_of_correct" not in metrics


def test_without_a_visual_weight_there_is_no_visual_curve():
    metrics = _part_metrics({"accuracy": PARTS["accuracy"], "total": PARTS["total"]}, UIDS, REAL)
    assert set(metrics) == {"reward/accuracy", "reward/total", "reward/groups_without_accuracy_spread"}


def test_advantages_of_a_group_with_equal_rewards_become_exactly_zero():
    advantages = [torch.full((2,), value) for value in (0.1, -0.1, 0.7, 0.15, -0.7)]
    rows = _without_flat_groups(advantages, np.array(["a", "a", "b", "c", "b"]), np.array([1.1, 1.1, 1.1, 0.3, 0.0]))
    # a: 1.1 and 1.1; b: 1.1 and 0.0; c: a single response
    assert [row.tolist() for row in rows[:2]] == [[0.0, 0.0], [0.0, 0.0]]
    assert rows[2] is advantages[2] and rows[4] is advantages[4]
    assert rows[3].tolist() == [0.0, 0.0]


def test_the_smallest_spread_keeps_its_advantages():
    advantages = [torch.ones(1), -torch.ones(1)]
    totals = np.array([1.0, np.nextafter(1.0, 2.0)])
    assert _without_flat_groups(advantages, np.array(["a", "a"]), totals) == advantages


def test_equal_rewards_would_give_advantages_without_it():
    """Why: verl's own GRPO advantage of eight equal rewards in fp32."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    rewards = torch.full((8, 1), 1.3)  # measured: advantages of 0.106
    advantages, _ = compute_grpo_outcome_advantage(rewards, torch.ones(8, 1), np.array(["a"] * 8, dtype=object))
    assert 0 < float(advantages.abs().max()) < 0.2
