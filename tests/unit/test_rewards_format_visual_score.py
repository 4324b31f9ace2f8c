"""Format reward, visual reward (PAPER: stage 3) and their combination, worked by hand in both polarities."""

import math

import pytest
import torch

from rewards import RewardWeights, Score, format_reward, token_visual_score, visual_reward


@pytest.mark.parametrize(
    "response",
    [
        "<think>I see a circle.</think><answer>6</answer>",
        "<think>several\nlines</think>\n<answer>\n6\n</answer>\n",
    ],
)
def test_right_format(response):
    assert format_reward(response) == 1.0


@pytest.mark.parametrize(
    "response",
    [
        "",
        "6",
        "<answer>6</answer>",
        "<think>a</think>",
        "<think>a</think><answer>6",
        "<answer>6</answer><think>a</think>",
        "<think>a</think>so<answer>6</answer>",
        "<think>a</think><answer>6</answer> done",
        "<think>a</think><answer>6</answer><answer>7</answer>",
        "<think>a<think>b</think></think><answer>6</answer>",
        "<think>a <answer>5</answer></think><answer>6</answer>",
        "<think></think><answer>6</answer>",
        "<think>a</think><answer> </answer>",
    ],
)
def test_wrong_format(response):
    assert format_reward(response) == 0.0


# Two layers, two tokens, heads already averaged.
IMAGE = torch.tensor([[0.6, 0.1], [0.2, 0.3]])
SYSTEM = torch.tensor([[0.2, 0.1], [0.1, 0.1]])


def test_ratio_is_the_mean_over_layers_of_image_by_system():
    # token 0: (0.6/0.2 + 0.2/0.1) / 2 = (3 + 2) / 2 = 2.5; token 1: (0.1/0.1 + 0.3/0.1) / 2 = (1 + 3) / 2 = 2
    torch.testing.assert_close(token_visual_score(IMAGE, SYSTEM, eps=1e-12), torch.tensor([2.5, 2.0]))


def test_eps_is_added_to_the_system_mass():
    # (0.6/(0.2+0.1) + 0.2/(0.1+0.1)) / 2 = (2 + 1) / 2; (0.1/0.2 + 0.3/0.2) / 2 = (0.5 + 1.5) / 2
    torch.testing.assert_close(token_visual_score(IMAGE, SYSTEM, eps=0.1), torch.tensor([1.5, 1.0]))


def test_share_is_bounded_by_one():
    # (0.6/0.8 + 0.2/0.3) / 2 = (3/4 + 2/3) / 2 = 17/24; (0.1/0.2 + 0.3/0.4) / 2 = (1/2 + 3/4) / 2 = 5/8
    torch.testing.assert_close(token_visual_score(IMAGE, SYSTEM, mode="share"), torch.tensor([17 / 24, 5 / 8]))
    assert token_visual_score(torch.ones(1, 1), torch.zeros(1, 1), mode="share").item() == 1.0
    assert token_visual_score(torch.zeros(1, 1), torch.zeros(1, 1), mode="share").item() == 0.0


def test_clip_bounds_a_token_after_the_mean_over_layers():
    torch.testing.assert_close(token_visual_score(IMAGE, SYSTEM, eps=1e-12, clip=2.2), torch.tensor([2.2, 2.0]))


def test_more_system_attention_lowers_and_more_image_attention_raises_the_score():
    for mode in ("ratio", "share"):
        base = token_visual_score(IMAGE, SYSTEM, mode=mode)
        assert (token_visual_score(IMAGE, 2 * SYSTEM, mode=mode) < base).all()
        assert (token_visual_score(2 * IMAGE, SYSTEM, mode=mode) > base).all()


def test_scores_keep_the_trailing_shape():
    masses = torch.rand(3, 2, 5)
    assert token_visual_score(masses, masses).shape == (2, 5)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="'rank' is unknown; choose one of ratio, share"):
        token_visual_score(IMAGE, SYSTEM, mode="rank")
    with pytest.raises(ValueError, match="differ in shape"):
        token_visual_score(IMAGE, SYSTEM[:1])


def test_visual_reward_is_the_mean_over_the_response_gated_by_correctness():
    scores = torch.tensor([2.5, 2.0, 0.0])
    assert visual_reward(scores, correct=True) == 1.5  # 4.5 / 3: a mean, not a sum, so length does not pay
    assert visual_reward(scores, correct=False) == 0.0


def test_visual_reward_refuses_what_cannot_be_a_response():
    with pytest.raises(ValueError, match=r"T > 0; got \(0,\)"):
        visual_reward(torch.empty(0), correct=True)
    with pytest.raises(ValueError, match="not finite"):
        visual_reward(torch.tensor([1.0, math.nan]), correct=True)
    assert visual_reward(torch.empty(0), correct=False) == 0.0


def test_combination_is_the_papers():
    # 1.0 * 1 + 0.3 * 2 + 0.1 * 1 = 1.7
    score = RewardWeights().combine({"accuracy": 1.0, "visual": 2.0, "format": 1.0})
    assert score.total == pytest.approx(1.7)
    assert score == Score(score.total, {"accuracy": 1.0, "visual": 2.0, "format": 1.0})  # parts unweighted


def test_a_weight_without_its_part_is_refused_and_a_part_without_weight_is_only_reported():
    with pytest.raises(ValueError, match=r"\['visual'\] have a weight but no value"):
        RewardWeights().combine({"accuracy": 1.0, "format": 1.0})
    assert RewardWeights(visual=0).combine({"accuracy": 1.0, "format": 0.0}).total == 1.0
    assert RewardWeights(visual=0).combine({"accuracy": 1.0, "format": 0.0, "visual": 9.0}).parts["visual"] == 9.0
    with pytest.raises(ValueError, match="unknown reward parts"):
        RewardWeights().combine({"acuracy": 1.0, "visual": 0.0, "format": 0.0})


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_weights_are_finite_and_not_negative(weight):
    with pytest.raises(ValueError, match="reward weight visual"):
        RewardWeights(visual=weight)
