"""The guided loss (AGTO, arXiv 2603.03825) against values worked by hand."""

import math

import pytest
import torch

from avar_rl.attention.pooling import sum_queries
from avar_rl.guidance import GuidanceConfig, guidance_terms
from avar_rl.runtime.settings import parse

# One sample: O S S S I I U U. |K_img| = 2, |K_sys| = 3, Q = {6, 7}. Two layers, two heads.
ROLES = torch.tensor([[0, 1, 1, 1, 2, 2, 3, 3]], dtype=torch.int8)
POSITIONS = torch.tensor([[6, 7, -1]])


def masses(image, system):
    """[[layer][head][query]] of image and system mass → (L, 1, 2, H, Q), with a padding query of 0."""
    both = torch.stack([torch.tensor(image), torch.tensor(system)], dim=1)[:, None]
    return torch.nn.functional.pad(both, (0, 1))


IMAGE = [[[0.2, 0.6], [0.1, 0.1]], [[0.4, 0.4], [0.5, 0.3]]]
SYSTEM = [[[0.3, 0.3], [0.6, 0.0]], [[0.2, 0.4], [0.1, 0.5]]]


def test_both_terms_by_hand():
    # Means over the |Q||K_img| = 4 pairs: 0.8/4 = 0.2, 0.2/4 = 0.05 | 0.8/4 = 0.2, 0.8/4 = 0.2.
    # L_enh = −(ln 0.2 + ln 0.05 + ln 0.2 + ln 0.2) / 4
    # Means over the |Q||K_sys| = 6 pairs: 0.6/6 = 0.1 four times; ε = 0.1: L_sup = ln(0.1 + 0.1).
    terms = guidance_terms(masses(IMAGE, SYSTEM), POSITIONS, ROLES, GuidanceConfig(eps=0.1))
    assert terms.enhance_N.tolist() == pytest.approx([-(3 * math.log(0.2) + math.log(0.05)) / 4], rel=1e-6)
    assert terms.suppress_N.tolist() == pytest.approx([math.log(0.2)], rel=1e-6)
    assert terms.guided_N.tolist() == [True]


def test_one_token_of_each_is_enough():
    # O S I U: |K_img| = |K_sys| = |Q| = 1, so the mean over pairs is the mass itself.
    roles, mass = torch.tensor([[0, 1, 2, 3]], dtype=torch.int8), torch.tensor([0.5, 0.25]).view(1, 1, 2, 1, 1)
    terms = guidance_terms(mass, torch.tensor([[3]]), roles, GuidanceConfig(eps=0.05))
    assert terms.guided_N.tolist() == [True]
    assert terms.enhance_N.item() == pytest.approx(-math.log(0.5)) and terms.suppress_N.item() == pytest.approx(
        math.log(0.3)
    )


def test_epsilon_is_in_the_suppressing_logarithm_only():
    silent = [[[0.0, 0.0], [0.0, 0.0]]] * 2
    terms = guidance_terms(masses(IMAGE, silent), POSITIONS, ROLES, GuidanceConfig(eps=1e-6))
    assert terms.suppress_N.item() == pytest.approx(math.log(1e-6), rel=1e-6)
    small = guidance_terms(masses(IMAGE, SYSTEM), POSITIONS, ROLES, GuidanceConfig(eps=1e-12))
    large = guidance_terms(masses(IMAGE, SYSTEM), POSITIONS, ROLES, GuidanceConfig(eps=0.5))
    assert small.enhance_N.item() == large.enhance_N.item()


def test_floor_stops_the_push_on_the_system_prompt():
    # The mean over pairs is 0.1 everywhere. A floor of 0.25 lies above: L_sup = ln(0.25 + ε), no gradient.
    mass = masses(IMAGE, SYSTEM).requires_grad_()
    terms = guidance_terms(mass, POSITIONS, ROLES, GuidanceConfig(eps=1e-6, floor=0.25))
    assert terms.suppress_N.item() == pytest.approx(math.log(0.25 + 1e-6), rel=1e-6)
    terms.suppress_N.sum().backward()
    assert mass.grad.abs().sum() == 0
    # A floor of 0.05 lies below and changes nothing.
    terms = guidance_terms(mass, POSITIONS, ROLES, GuidanceConfig(eps=1e-6, floor=0.05))
    assert terms.suppress_N.item() == pytest.approx(math.log(0.1 + 1e-6), rel=1e-6)


def test_gradient_by_hand():
    # dL_enh/dmass = −1/(L·H) · 1/(sum of the head's masses over Q): layer 0, head 0: −1/4 · 1/0.8.
    mass = masses(IMAGE, SYSTEM).requires_grad_()
    guidance_terms(mass, POSITIONS, ROLES, GuidanceConfig()).enhance_N.sum().backward()
    assert mass.grad[0, 0, 0, 0].tolist() == pytest.approx([-0.3125, -0.3125, 0.0])
    assert mass.grad[0, 0, 0, 1].tolist() == pytest.approx([-1.25, -1.25, 0.0])


@pytest.mark.parametrize(
    ("roles", "positions"),
    [
        ([0, 1, 1, 1, 3, 3, 3, 3], [-1, -1, -1]),  # no image, so no user text after it
        ([0, 1, 1, 1, 3, 3, 3, 3], [6, 7, -1]),  # no image, positions of the response
        ([0, 1, 1, 1, 3, 3, 2, 2], [-1, -1, -1]),  # image last: Q is empty
    ],
)
def test_samples_that_do_not_count_give_exactly_zero_and_no_gradient(roles, positions):
    # Their masses are 0, whose logarithm has no finite gradient.
    batch_mass = torch.cat([masses(IMAGE, SYSTEM), torch.zeros(2, 1, 2, 2, 3)], dim=1).requires_grad_()
    batch_roles = torch.cat([ROLES, torch.tensor([roles], dtype=torch.int8)])
    terms = guidance_terms(batch_mass, torch.cat([POSITIONS, torch.tensor([positions])]), batch_roles, GuidanceConfig())
    assert terms.guided_N.tolist() == [True, False]
    assert terms.enhance_N[1].item() == 0.0 and terms.suppress_N[1].item() == 0.0
    (terms.enhance_N + terms.suppress_N).sum().backward()
    assert batch_mass.grad.isfinite().all()
    assert batch_mass.grad[:, 1].abs().sum() == 0 and batch_mass.grad[:, 0].abs().sum() > 0


def test_a_batch_without_images_gives_zeros_without_rows():
    mass = torch.zeros(2, 3, 2, 2, 0, requires_grad=True)
    roles = torch.ones(3, 8, dtype=torch.int8)
    terms = guidance_terms(mass, torch.empty(3, 0, dtype=torch.int64), roles, GuidanceConfig())
    assert terms.enhance_N.tolist() == terms.suppress_N.tolist() == [0.0] * 3
    (terms.enhance_N + terms.suppress_N).sum().backward()


def test_no_system_turn_leaves_only_the_enhancing_term():
    roles = torch.where(ROLES == 1, 0, ROLES)
    terms = guidance_terms(masses(IMAGE, [[[0.0, 0.0]] * 2] * 2), POSITIONS, roles, GuidanceConfig())
    assert terms.suppress_N.item() == 0.0 and terms.enhance_N.item() != 0.0


def test_packed_samples_equal_separate_ones():
    separate_mass = torch.rand(2, 2, 2, 2, 3)
    positions = torch.tensor([[6, 7, -1], [5, 6, 7]])
    roles = torch.cat([ROLES, torch.tensor([[0, 1, 2, 2, 2, 3, 3, 3]], dtype=torch.int8)])
    separate = guidance_terms(separate_mass * (positions >= 0)[:, None, None], positions, roles, GuidanceConfig())

    packed_rows = torch.tensor([[6, 7, 13, 14, 15, -1]])  # the second sequence begins at 8
    packed_mass = torch.cat([separate_mass[:, 0, ..., :2], separate_mass[:, 1], torch.zeros(2, 2, 2, 1)], -1)[:, None]
    packed = guidance_terms(
        packed_mass, packed_rows, roles.view(1, 16), GuidanceConfig(), cu_seqlens=torch.tensor([0, 8, 16])
    )
    torch.testing.assert_close(packed.enhance_N, separate.enhance_N)
    torch.testing.assert_close(packed.suppress_N, separate.suppress_N)


def test_sum_queries_skips_padding():
    sums, counts = sum_queries(torch.ones(1, 2, 1, 1, 3), torch.tensor([[4, 5, 6], [7, -1, -1]]))
    assert sums.flatten().tolist() == [3.0, 1.0] and counts.tolist() == [3, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": -0.1},
        {"beta": float("nan")},
        {"eps": 0.0},
        {"floor": 1.5},
        {"queries": "all_user"},
        {"layers": ()},
        {"layers": (-1,)},
        {"layers": "1-"},
        {"layers": [True]},
        {"layers": ["first"]},
    ],
)
def test_bad_settings_are_refused_by_name(wrong):
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=rf"^avar\.guidance\.{name}[.0]*: "):
        parse(GuidanceConfig, wrong, "avar.guidance")
    with pytest.raises(ValueError, match=name):
        GuidanceConfig(**wrong)


def test_settings_from_a_recipe():
    found = parse(GuidanceConfig, {"eps": "1e-6", "layers": "2,0-1", "queries": "response"}, "avar.guidance")
    assert found == GuidanceConfig(layers=(0, 1, 2), queries="response") and hash(found)
    assert GuidanceConfig(layers=[3, 1, 3]).layers == (1, 3) and parse(GuidanceConfig, {"layers": 3}, "").layers == (3,)


def test_plain_sft_is_alpha_and_beta_zero():
    assert not GuidanceConfig(alpha=0.0, beta=0.0).enabled
    assert GuidanceConfig(alpha=0.0).enabled and GuidanceConfig(beta=0.0).enabled


def test_wrong_number_of_spans_is_refused():
    with pytest.raises(ValueError, match="2 spans"):
        guidance_terms(torch.zeros(1, 1, 3, 1, 3), POSITIONS, ROLES, GuidanceConfig())
