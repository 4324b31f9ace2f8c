"""The shipped token weights, worked by hand, and vppo against the arithmetic of its authors' code."""

import math

import pytest
import torch

from rewards.sample import AttentionSample, Masses, Tokens
from rewards.token_weights.attention_top import attention_top
from rewards.token_weights.entropy_top import entropy_top
from rewards.token_weights.vppo import vppo
from rewards.weigh import TokenWeightError, TokenWeightSet, parse_weights

LOG2 = math.log(2)


def attending(*mass_TL: tuple[float, ...], images: int = 1) -> AttentionSample:
    image_TL = torch.tensor(mass_TL)
    zeros_T = torch.zeros(len(image_TL))
    known = {"masses": Masses(image_TL, 1 - image_TL), "tokens": Tokens(zeros_T, zeros_T)}
    return AttentionSample("q", "r", "6", image_sizes=((8, 8),) * images, **known)


def uncertain(*entropies: float) -> AttentionSample:
    entropy_T = torch.tensor(entropies)
    return AttentionSample("q", "r", "6", tokens=Tokens(-entropy_T, entropy_T))


def dependent(*dependence: float, images: int = 1) -> AttentionSample:
    dependence_T = torch.tensor(dependence)
    tokens = Tokens(-torch.ones(len(dependence_T)), torch.ones(len(dependence_T)), dependence_T if images else None)
    return AttentionSample("q", "r", "6", row_id="row 3", image_sizes=((8, 8),) * images, tokens=tokens)


def test_attention_top_goes_by_the_mean_of_the_layers():
    # means 0.5, 0.3, 0.4, 0.4, 0.1: two of five, and of the two 0.4 the earlier
    response = attending((0.9, 0.1), (0.3, 0.3), (0.0, 0.8), (0.4, 0.4), (0.2, 0.0))
    assert attention_top(response, share=0.4).tolist() == [1, 0, 1, 0, 0]
    assert attention_top(response, share=0.6).tolist() == [1, 0, 1, 1, 0]
    assert attention_top(response, share=1.0).tolist() == [1] * 5


def test_attention_top_has_nothing_to_choose_by_without_an_image():
    assert attention_top(attending((0.0,), (0.0,), images=0), share=0.4).tolist() == [1, 1]
    with pytest.raises(ValueError, match="the response has no attention masses"):
        attention_top(AttentionSample("q", "r", "6", image_sizes=((8, 8),)))


def test_entropy_top_is_a_share_of_the_step_or_of_each_response():
    rows = [uncertain(0.1, 0.2, 3.0, 2.0), uncertain(), uncertain(1.0, 0.3, 0.4, 0.5, 0.6, 0.7)]
    # 2 of 10: 3.0 and 2.0; of each: 1 of 4, and 2 of 6
    assert [w_T.tolist() for w_T in entropy_top(rows)] == [[0, 0, 1, 1], [], [0] * 6]
    of_each = entropy_top(rows, over="response")
    assert [w_T.tolist() for w_T in of_each] == [[0, 0, 1, 0], [], [1, 0, 0, 0, 0, 1]]
    with pytest.raises(ValueError, match="a response has no entropies"):
        entropy_top([AttentionSample("q", "r", "6")])


def test_vppo_by_hand():
    """k3 of d is exp(-d) + d - 1: log 2 and -log 2 give 0.1931 and 0.3069, together 0.5."""
    rows = [
        dependent(0.0, LOG2, 0.0, 0.0, -LOG2),  # S = 0.1; two of five: the last and the second
        dependent(0.0, 0.0, 0.0),  # S = 0: alpha = beta_min; two of three, the earlier ones
        dependent(LOG2, -LOG2),  # S = 0.25, the largest; one of two
        dependent(5.0, 5.0, images=0),
    ]
    fixed = TokenWeightSet(parse_weights({"vppo": {"beta_max": 1.0}}))
    # 0.9 + 0.1 * 0.1 / 0.25
    wanted = [[0, 0.94, 0, 0, 0.94], [0.9, 0.9, 0], [0, 1.0], [1.0, 1.0]]
    found = fixed.weigh(rows).factors
    assert [torch.as_tensor(f_T).tolist() for f_T in found] == [pytest.approx(w) for w in wanted]
    # without beta_max: the mean S is 0.35 / 3, and the mean alpha of the three is 1
    alphas = [0.9 + 0.1 * s / (0.35 / 3) for s in (0.1, 0.0, 0.25)]
    assert sum(alphas) == pytest.approx(3.0)
    free = vppo(rows)
    assert [float(w_T.max()) for w_T in free] == pytest.approx([*alphas, 1.0])
    assert [int((w_T > 0).sum()) for w_T in free] == [2, 2, 1, 2]


def test_vppo_is_bounded_where_the_image_made_a_token_unlikely():
    far, near = dependent(-1000.0, 1000.0), dependent(0.0, 0.0)
    # exp(20) and 19 are both cut at 10
    first, second = vppo([far, near], share=1.0, beta_max=1.5)
    assert first.tolist() == [1.5, 1.5] and second.tolist() == pytest.approx([0.9, 0.9])


def test_vppo_without_a_spread_leaves_responses_alike():
    rows = [dependent(LOG2, 0.0), dependent(LOG2, 0.0)]
    assert [w_T.tolist() for w_T in vppo(rows)] == [[1.0, 0.0]] * 2
    assert [w_T.tolist() for w_T in vppo([dependent(LOG2, 0.0)])] == [[1.0, 0.0]]
    assert [w_T.tolist() for w_T in vppo([dependent(LOG2, 0.0, images=0)])] == [[1.0, 1.0]]
    assert vppo([]) == []


def test_vppo_names_what_is_missing():
    weights = TokenWeightSet(parse_weights({"vppo": {}}))
    assert weights.needs == {"blind"}
    bare = AttentionSample("q", "r", "6", row_id="row 3", image_sizes=((8, 8),), tokens=dependent(0.0, images=0).tokens)
    with pytest.raises(TokenWeightError, match="vppo failed on the step: ValueError: 1 responses have no dependence"):
        weights.weigh([bare])
    with pytest.raises(ValueError, match="avar.token_weights.vppo.beta_max=0.5 is less than beta_min=0.9"):
        vppo([], beta_max=0.5)


def test_vppo_is_its_authors_on_one_device_and_in_one_micro_batch():
    """Padded, with log-probabilities in float64, by their steps: k3, its mean, the range, beta_max, the rank mask."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 17, 40, 1, 40])
    clean_NT = -torch.rand(5, 40, generator=generator)
    blind_NT = clean_NT - torch.randn(5, 40, generator=generator)
    mask_NT = torch.arange(40) < lengths[:, None]
    difference_NT = (blind_NT - clean_NT).double().clamp(-20, 20)
    k3_NT = (difference_NT.exp() - difference_NT - 1).clamp(0, 10)
    score_N = (k3_NT * mask_NT).sum(1) / lengths
    place_N = (score_N - score_N.min()) / (score_N.max() - score_N.min())
    beta_max = 0.9 + (1 - 0.9) / (place_N.mean() + 1e-8)
    alpha_N = 0.9 + place_N * (beta_max - 0.9)
    order_NT = k3_NT.masked_fill(~mask_NT, -torch.inf).sort(dim=1, descending=True).indices
    first_NT = torch.arange(40) < torch.ceil(lengths * 0.4).int()[:, None]
    chosen_NT = torch.zeros(5, 40, dtype=torch.bool).scatter(1, order_NT, first_NT) & mask_NT

    rows = [dependent(*(c - b)[:n].tolist()) for c, b, n in zip(clean_NT, blind_NT, lengths.tolist(), strict=True)]
    for i, weight_T in enumerate(vppo(rows)):
        expected_T = alpha_N[i] * chosen_NT[i, : lengths[i]]
        torch.testing.assert_close(weight_T.double(), expected_T, rtol=1e-6, atol=1e-7)
