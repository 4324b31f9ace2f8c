import pytest
import torch

from avar_rl.vas import summarise, vas_spans, visual_attention

# O S S I I U U: user positions 5 and 6. One layer, two heads.
ROLES = torch.tensor([[0, 1, 1, 2, 2, 3, 3]], dtype=torch.int8)
POSITIONS = torch.tensor([[5, 6, -1]])
#        head 0: positions 5, 6     head 1
IMAGE = [[0.4, 0.2, 0.0], [0.1, 0.3, 0.0]]
SYSTEM = [[0.1, 0.1, 0.0], [0.2, 0.1, 0.0]]
SINK = [[0.3, 0.1, 0.0], [0.3, 0.4, 0.0]]
MASS = torch.tensor([IMAGE, SYSTEM, SINK])[None, None]  # (L, B, S, H, Q)


def test_by_hand():
    got = visual_attention(MASS, POSITIONS, ROLES)
    # Ratios 0.4/0.1, 0.2/0.1, 0.1/0.2, 0.3/0.1 = 4, 2, 0.5, 3; mean 9.5/4.
    assert got.vas_N.item() == pytest.approx(2.375)
    # With the sink 0.4/0.4, 0.2/0.2, 0.1/0.5, 0.3/0.5 = 1, 1, 0.2, 0.6; mean 2.8/4.
    assert got.vas_with_sink_N.item() == pytest.approx(0.7)
    assert got.image_mass_N.item() == pytest.approx(1.0 / 4)
    assert got.system_mass_N.item() == pytest.approx(0.5 / 4)
    assert got.system_mass_with_sink_N.item() == pytest.approx(1.6 / 4)
    assert got.ratio_of_means_N.item() == pytest.approx(1.0 / 0.5)
    assert got.ratio_of_means_with_sink_N.item() == pytest.approx(1.0 / 1.6)
    assert got.measured_N.tolist() == [True]


def test_one_token_of_each_is_enough():
    # O S I U: masses 0.5 on the image, 0.25 on the system turn, 0.25 on the sink.
    roles, mass = torch.tensor([[0, 1, 2, 3]], dtype=torch.int8), torch.tensor([0.5, 0.25, 0.25]).view(1, 1, 3, 1, 1)
    got = visual_attention(mass, torch.tensor([[3]]), roles)
    assert got.measured_N.tolist() == [True]
    assert (got.vas_N.item(), got.vas_with_sink_N.item(), got.image_mass_N.item()) == (2.0, 1.0, 0.5)


def test_layers_are_averaged():
    # A second layer with half the image mass has ratios half as large: mean of 2.375 and 1.1875.
    half = MASS * torch.tensor([0.5, 1.0, 1.0])[:, None, None]
    assert visual_attention(torch.cat([MASS, half]), POSITIONS, ROLES).vas_N.item() == pytest.approx(1.78125)


@pytest.mark.parametrize("missing", [1, 2, 3], ids=["system", "image", "user"])
def test_samples_that_cannot_be_measured_are_excluded_and_counted(missing):
    roles = torch.cat([ROLES, torch.where(ROLES == missing, 0, ROLES)])
    positions = torch.cat([POSITIONS, torch.full_like(POSITIONS, -1) if missing == 3 else POSITIONS])
    mass = torch.cat([MASS, MASS * (positions[1] >= 0)], dim=1)
    mass[:, 1, missing - 1 if missing < 3 else 0] = 0.0
    got = visual_attention(mass, positions, roles)
    assert got.measured_N.tolist() == [True, False]
    assert got.vas_N[1].item() == 0.0 and got.vas_N.isfinite().all()
    summary = summarise([got])
    assert (summary.n, summary.excluded) == (1, 1)
    assert summary.vas == pytest.approx(2.375)


def test_underflown_system_mass_is_huge_not_nan():
    mass = MASS.clone()
    mass[:, :, 1] = 0.0
    vas = visual_attention(mass, POSITIONS, ROLES).vas_N
    assert vas.item() > 1e30 and vas.isfinite().all()


def test_summary_averages_samples_over_batches():
    double = MASS * torch.tensor([2.0, 1.0, 1.0])[:, None, None]  # twice the image mass: VAS 4.75
    batches = [visual_attention(MASS, POSITIONS, ROLES), visual_attention(double, POSITIONS, ROLES)]
    assert summarise(batches).vas == pytest.approx((2.375 + 4.75) / 2)


def test_nothing_to_measure_raises():
    none = visual_attention(MASS, POSITIONS, torch.where(ROLES == 2, 3, ROLES))
    with pytest.raises(ValueError, match="none of 1 samples"):
        summarise([none])
    with pytest.raises(ValueError, match="none of 0 samples"):
        summarise([])


def test_position_zero_is_a_span_of_its_own():
    image, system, sink = vas_spans(ROLES)[0].int().tolist()
    assert image == [0, 0, 0, 1, 1, 0, 0]
    assert system == [0, 1, 1, 0, 0, 0, 0]
    assert sink == [1, 0, 0, 0, 0, 0, 0]


def test_position_zero_inside_the_system_turn_is_counted_once():
    roles = torch.tensor([[1, 1, 2, 3]], dtype=torch.int8)
    _, system, sink = vas_spans(roles)[0].int().tolist()
    assert system == [0, 1, 0, 0] and sink == [1, 0, 0, 0]


def test_position_zero_under_left_padding_and_packing():
    roles = torch.tensor([[0, 0, 0, 1, 2], [0, 1, 1, 2, 3]], dtype=torch.int8)
    valid = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    assert vas_spans(roles, valid_BT=valid)[:, 2].int().tolist() == [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]
    packed = vas_spans(roles.view(1, 10), cu_seqlens=torch.tensor([0, 5, 10]))
    assert packed[0, 2].int().tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_packed_samples_equal_separate_ones():
    positions = torch.tensor([[5, 6, -1], [4, 5, 6]])
    mass = torch.rand(2, 2, 3, 2, 3) * (positions >= 0)[:, None, None]
    roles = ROLES.expand(2, 7)
    separate = visual_attention(mass, positions, roles)
    packed = visual_attention(
        torch.cat([mass[:, 0, ..., :2], mass[:, 1]], -1)[:, None],
        torch.tensor([[5, 6, 11, 12, 13]]),
        roles.reshape(1, 14),
        cu_seqlens=torch.tensor([0, 7, 14]),
    )
    torch.testing.assert_close(packed.vas_N, separate.vas_N)
    torch.testing.assert_close(packed.ratio_of_means_with_sink_N, separate.ratio_of_means_with_sink_N)


def test_wrong_number_of_spans_is_refused():
    with pytest.raises(ValueError, match="3 spans"):
        visual_attention(MASS[:, :, :2], POSITIONS, ROLES)
