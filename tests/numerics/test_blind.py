"""For each model family: masked rows of pixel_values are what its processor makes of an image with black patches, and
what the probe says of a response with and without its image is what the model says of these images, one at a time."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from avar_rl.attention.families import FAMILIES
from avar_rl.attention.roles import Markup, Role, token_roles
from avar_rl.blind import BlindSettings, PatchFormat, mask_pixels, masked_patches, response_seed
from avar_rl.probe.blind_pass import measure_blind
from avar_rl.probe.measure import load_network, measure
from avar_rl.probe.samples import Conversation
from data_tools.miniature.model import MINIATURES, make_processor, make_tokenizer, save
from data_tools.validate import load_processor

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


def conversation(name: str, images: list[Image.Image], response: str) -> Conversation:
    encoded = []
    for image in images:
        encoded.append(io.BytesIO())
        image.save(encoded[-1], "PNG")  # loses nothing
    user = {"role": "user", "content": "<image>" * len(images) + "How many are red?"}
    answer = [{"role": "assistant", "content": response}] if response else []
    return Conversation(name, (user, *answer), tuple(file.getvalue() for file in encoded), asks=False)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_the_probe_says_what_the_model_says_of_black_patches(family, tmp_path):
    save(tmp_path / "base", ["There are two red ones.", "How many are red?"], 0, family)
    network, processor = load_network(str(tmp_path / "base"), "cpu"), load_processor(tmp_path / "base")
    patch, merge = processor.image_processor.patch_size, processor.image_processor.merge_size
    images, settings = pictures(patch * merge), BlindSettings(seed=3)
    samples = [
        conversation("one", images[:1], "Two."),
        conversation("text only", [], "Two."),
        conversation("two", images, "There are two red ones."),
        conversation("unanswered", images[1:], ""),
    ]
    heads, found = measure_blind(network, samples, processor, settings, batch_size=4)
    assert [tokens is not None for tokens in found] == [True, False, True, False]
    alone = measure(network, samples, processor, queries="response", batch_size=1)
    torch.testing.assert_close(vars(heads), vars(alone), rtol=1e-4, atol=1e-6)

    eager = load_network(str(tmp_path / "base"), "cpu")
    eager.set_attn_implementation("eager")
    for sample, tokens in ((samples[0], found[0]), (samples[2], found[2])):
        shown = sample.pictures()
        inputs = processor(text=[sample.text(processor)], images=shown, return_tensors="pt")
        ids_T = inputs["input_ids"][0]
        roles_T = token_roles(ids_T[None], Markup.from_tokenizer(processor.tokenizer))[0]
        at_R = (roles_T == Role.RESPONSE).nonzero()[:, 0]
        assert tokens.ids_R.tolist() == ids_T[at_R].tolist()
        seed = response_seed(ids_T, 3)
        black = [
            blackened(
                image,
                masked_patches(image.width * image.height // patch**2, seed + place, settings, merge),
                patch,
                merge,
            )
            for place, image in enumerate(shown)
        ]
        for pixels, log_probs_R in ((shown, tokens.log_probs_R), (black, tokens.blind_log_probs_R)):
            seen = processor(text=[sample.text(processor)], images=pixels, return_tensors="pt")
            logits_TV = eager(**seen).logits[0].double()
            expected_R = logits_TV.log_softmax(-1)[at_R - 1, ids_T[at_R]]
            torch.testing.assert_close(log_probs_R, expected_R, rtol=0, atol=2e-5)
        maps_LHTT = torch.stack(eager(**inputs, output_attentions=True).attentions)[:, 0]
        mass_TL = maps_LHTT[..., roles_T == Role.IMAGE].sum(-1).mean(1).T.double()
        torch.testing.assert_close(tokens.image_mass_RL, mass_TL[at_R], rtol=0, atol=1e-5)
        torch.testing.assert_close(tokens.image_mass_before_RL, mass_TL[at_R - 1], rtol=0, atol=1e-5)
        assert tokens.dependence_R.abs().max() > 1e-3  # the patches made a difference
