"""Masked rows of pixel_values by hand: which, with what, and that a batch's other rows change nothing."""

import pytest
import torch

from avar_rl.blind import BlindSettings, PatchFormat, mask_pixels, masked_patches, response_seed
from avar_rl.runtime.settings import parse

# Two colours, patches of one pixel in one frame: a row is (first colour, second colour).
FORMAT = PatchFormat(black=(-2.0, -1.0), merge_size=2)
BLACK = [-2.0, -1.0]
GRID = torch.tensor([[1, 2, 4]])  # 8 patches, 2 image tokens
PIXELS = torch.arange(16.0).view(8, 2)


def masked(settings: BlindSettings, pixels=PIXELS, grid=GRID, seeds=(5,), images=(1,)) -> torch.Tensor:
    return mask_pixels(pixels, grid, seeds, settings, FORMAT, images_per_row=images)


def test_a_share_of_patches_becomes_black_and_the_others_stay():
    before = PIXELS.clone()
    found = masked(BlindSettings(share=0.6))  # 4.8 of 8
    black = [row == BLACK for row in found.tolist()]
    assert sum(black) == 5 and black == masked_patches(8, 5, BlindSettings(), 2).tolist()
    assert all(row == old for row, old, hit in zip(found.tolist(), before.tolist(), black, strict=True) if not hit)
    assert torch.equal(PIXELS, before)  # not in place


def test_a_token_is_its_four_patches():
    found = masked(BlindSettings(mask="tokens", share=0.5))
    rows = [row == BLACK for row in found.tolist()]
    assert rows in ([True] * 4 + [False] * 4, [False] * 4 + [True] * 4)


@pytest.mark.parametrize(("mask", "share", "hit"), [("patches", 0.01, 1), ("patches", 1.0, 8), ("tokens", 0.1, 4)])
def test_at_least_one_and_at_most_all(mask, share, hit):
    assert masked_patches(8, 3, BlindSettings(mask=mask, share=share), 2).sum() == hit


def test_the_mean_is_the_images_own_and_colour_by_colour():
    # Rows of 2 colours x 2 values. First image: colours (0, 1, 2, 3) and (10, 10, 10, 30); means 1.5 and 15.
    first = [[0.0, 1.0, 10.0, 10.0], [2.0, 3.0, 10.0, 30.0]]
    second = [[7.0, 7.0, -1.0, -3.0]]  # means 7 and -2
    found = masked(
        BlindSettings(share=1.0, value="mean"),
        torch.tensor(first + second),
        torch.tensor([[1, 1, 2], [1, 1, 1]]),
        images=(2,),
    )
    assert found.tolist() == [[1.5, 1.5, 15.0, 15.0]] * 2 + [[7.0, 7.0, -2.0, -2.0]]


@pytest.mark.parametrize("value", ["black", "mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_is_kept(dtype, value):
    assert masked(BlindSettings(value=value), PIXELS.to(dtype)).dtype == dtype


def test_a_response_is_masked_alike_in_every_batch():
    """Three responses of two, no and one images; alone, together, and in another order."""
    settings = BlindSettings()
    ids = [torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([1, 2, 4])]
    seeds, counts = [response_seed(one, 0) for one in ids], [2, 0, 1]
    images = [torch.rand(16, 2), torch.rand(0, 2), torch.rand(8, 2)]

    def together(order):
        pixels, grid = torch.cat([images[i] for i in order]), GRID.expand(3, 3)
        return masked(settings, pixels, grid, [seeds[i] for i in order], [counts[i] for i in order])

    forward, backward = together([0, 1, 2]), together([2, 1, 0])
    assert torch.equal(forward[:16], backward[8:]) and torch.equal(forward[16:], backward[:8])
    alone = masked(settings, images[0], GRID.expand(2, 3), seeds[:1], [2])
    assert torch.equal(alone, forward[:16])


def test_seeds_differ_by_response_setting_and_image():
    ids = torch.tensor([5, 6, 7])
    assert response_seed(ids, 0) == response_seed(ids.int(), 0) == response_seed(torch.tensor([9, 5, 6, 7])[1:], 0)
    others = {response_seed(ids, 0), response_seed(ids, 1), response_seed(ids.flip(0), 0), response_seed(ids[:2], 0)}
    assert len(others) == 4 and all(0 <= seed < 1 << 63 for seed in others)
    # Of 64 patches 38 are masked in 1e18 ways, so no two images are masked alike.
    grid = torch.tensor([[1, 8, 8], [1, 8, 8]])
    first, second = masked(BlindSettings(), torch.rand(128, 2), grid, images=(2,)).split(64)
    assert not torch.equal(first.eq(torch.tensor(BLACK)), second.eq(torch.tensor(BLACK)))


def test_this_seed_masks_these_patches():
    """Written down, so that a change of the random numbers does not pass unseen: records would no longer compare."""
    seed = response_seed(torch.tensor([1, 2, 3]), 0)
    assert seed == 7240035923650490227
    assert masked_patches(10, seed, BlindSettings(share=0.3), 2).nonzero().flatten().tolist() == [1, 3, 9]


def test_a_batch_without_images_is_nothing_to_mask():
    grid = torch.zeros(0, 3, dtype=torch.long)
    assert masked(BlindSettings(), torch.zeros(0, 2), grid, images=(0,)).shape == (0, 2)


def test_what_does_not_agree_is_refused():
    with pytest.raises(ValueError, match="1 seeds for 2 rows"):
        masked(BlindSettings(), images=(1, 0))
    with pytest.raises(ValueError, match="the rows have 2 images, but image_grid_thw has 1"):
        masked(BlindSettings(), images=(2,))
    with pytest.raises(ValueError, match=r"\(7, 2\) do not hold the 8 patches"):
        masked(BlindSettings(), PIXELS[:7])
    with pytest.raises(ValueError, match="a patch of 3 values is not of 2 colours"):
        masked(BlindSettings(), torch.zeros(8, 3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 0}, "avar.blind.share: Input should be greater than 0, not 0"),
        ({"share": 1.5}, "avar.blind.share: Input should be less than or equal to 1, not 1.5"),
        ({"mask": "pixels"}, "avar.blind.mask: Input should be 'patches' or 'tokens', not 'pixels'"),
        ({"value": "white"}, "avar.blind.value: Input should be 'black' or 'mean', not 'white'"),
        ({"seed": 0.5}, "avar.blind.seed: Input should be a valid integer, got a number with a fractional part"),
        ({"shares": 0.5}, r"unknown key avar.blind.shares \(did you mean share\?\)"),
    ],
)
def test_faulty_settings(values, message):
    with pytest.raises(ValueError, match=message):
        parse(BlindSettings, values, "avar.blind")
