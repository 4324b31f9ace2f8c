"""For each model family: masked rows of pixel_values are what its processor makes of an image with black patches."""

import numpy as np
import pytest
import torch
from PIL import Image

from avar_rl.attention.families import FAMILIES
from avar_rl.blind import BlindSettings, PatchFormat, mask_pixels, masked_patches
from data_tools.miniature.model import MINIATURES, make_processor, make_tokenizer

SEEDS = (11, 12)
TOKENS = ((3, 4), (2, 5))  # of the two images, high and wide


def pictures(side: int) -> list[Image.Image]:
    """Noise, which no patch has by chance, of sizes that no processor resizes."""
    generator = np.random.default_rng(0)
    sizes = [(high * side, wide * side, 3) for high, wide in TOKENS]
    return [Image.fromarray(generator.integers(1, 256, size, dtype=np.uint8)) for size in sizes]


def blackened(picture: Image.Image, chosen: torch.Tensor, patch: int, merge: int) -> Image.Image:
    """The picture with its chosen patches black, each painted where it lies.

    Patches come token after token, line by line, and so within a token.
    """
    pixels = np.array(picture)
    places = [
        (token_y + y, token_x + x)
        for token_y in range(0, picture.height // patch, merge)
        for token_x in range(0, picture.width // patch, merge)
        for y in range(merge)
        for x in range(merge)
    ]
    for (y, x), hit in zip(places, chosen.tolist(), strict=True):
        if hit:
            pixels[y * patch : (y + 1) * patch, x * patch : (x + 1) * patch] = 0
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mask", ["patches", "tokens"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_rows_equal_black_patches_of_the_resized_image(family, mask):
    processor = make_processor(make_tokenizer(["a picture"]), MINIATURES[family]).image_processor
    patch, merge = processor.patch_size, processor.merge_size
    settings = BlindSettings(mask=mask)
    images = pictures(patch * merge)
    clean = processor(images, return_tensors="pt")
    unresized = processor(images, do_resize=False, return_tensors="pt")
    assert torch.equal(clean["pixel_values"], unresized["pixel_values"])  # these are the resized images

    chosen = [
        masked_patches(4 * high * wide, seed, settings, merge) for (high, wide), seed in zip(TOKENS, SEEDS, strict=True)
    ]
    black = [blackened(image, hit, patch, merge) for image, hit in zip(images, chosen, strict=True)]
    expected = processor(black, do_resize=False, return_tensors="pt")["pixel_values"]
    found = mask_pixels(
        clean["pixel_values"],
        clean["image_grid_thw"],
        SEEDS,
        settings,
        PatchFormat.of(processor),
        images_per_row=(1, 1),
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (found == clean["pixel_values"]).all(1).tolist() == (~torch.cat(chosen)).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_where_the_processor_does_not_normalise_black_is_0(family):
    processor = make_processor(make_tokenizer(["a picture"]), MINIATURES[family]).image_processor
    assert min(PatchFormat.of(processor).black) < -0.9
    processor.do_normalize = False
    assert PatchFormat.of(processor).black == (0.0, 0.0, 0.0)
