"""The blind pass: which patches of an image are masked, and with what, so that a model sees less of it.

What a response's tokens lose by it is their causal visual dependence,

    dependence_t = log p(y_t | x, image, y_<t) - log p(y_t | x, masked image, y_<t),

which VPPO (arXiv 2510.09285) weighs tokens by and PAPO (arXiv 2507.06448) trains on. PAPO masks squares of the image
before it is resized; here rows of `pixel_values` are masked, after it, where a row is exactly one patch of the vision
tower. Black rows equal black patches of the resized image (within 1e-6: tests/numerics/test_blind.py).

The patches depend on the token ids of the response's whole sequence and on the setting's seed alone, so they are the
same in every batch, on every rank, and in the passes before and inside an update.

Shapes: P patches of all images, D = C * X values of a patch (C colours, X pixels: p * p in each of F frames), I images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from avar_rl.runtime.settings import Share, Whole, settings


@settings
class BlindSettings:
    """How an image is masked.

    mask: what is masked at a time: `patches` (rows of pixel_values) or `tokens` (the squares of merge_size *
        merge_size patches that become one image token each).
    share: of an image's patches or tokens, rounded; at least one is masked.
    value: what a masked pixel is: black, or the mean colour of its image.
    seed: another seed masks other patches.
    """

    mask: Literal["patches", "tokens"] = "patches"
    share: Annotated[Share, Field(gt=0)] = 0.6
    value: Literal["black", "mean"] = "black"
    seed: Whole = 0


@dataclass(frozen=True)
class PatchFormat:
    """What masking needs to know of an image processor.

    black: what it makes of a black pixel, for each colour.
    merge_size: patches along the side of an image token.
    """

    black: tuple[float, ...]
    merge_size: int

    @classmethod
    def of(cls, image_processor: Any) -> PatchFormat:
        """The format of Qwen2-VL's image processor, which Qwen2.5-VL and Qwen3-VL use, too."""
        mean, std = image_processor.image_mean, image_processor.image_std
        if not image_processor.do_normalize:
            mean = [0.0] * len(mean)
        return cls(tuple(-m / s for m, s in zip(mean, std, strict=True)), image_processor.merge_size)


def response_seed(input_ids: Tensor, seed: int) -> int:
    """What decides the masked patches of one response: a 63-bit hash of its token ids and of the setting's seed.

    Args:
        input_ids: int (T,), prompt and response, without padding.
        seed: `BlindSettings.seed`.
    """
    digest = hashlib.blake2b(f"{seed}:".encode(), digest_size=8)
    digest.update(input_ids.to("cpu", torch.int64).numpy().tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1


def mask_pixels(
    pixel_values: Tensor,
    image_grid_thw: Tensor,
    seeds: Sequence[int],
    settings: BlindSettings,
    patch_format: PatchFormat,
    *,
    images_per_row: Sequence[int],
) -> Tensor:
    """A copy of `pixel_values` in which a share of each image's patches is masked.

    Args:
        pixel_values: (P, D), the patches of all images of a batch, image after image, in any float dtype.
        image_grid_thw: int (I, 3), the grid of patches of each image.
        seeds: one for each row (sequence) of the batch: `response_seed`.
        images_per_row: how many of the I images each row has; they come in the order of the rows.

    Raises:
        ValueError: numbers of patches, images or rows that do not agree, or patches that are not of these colours.
    """
    sizes = image_grid_thw.prod(-1).tolist()
    colours = len(patch_format.black)
    _check(pixel_values, sizes, seeds, images_per_row, colours)
    if not sizes:
        return pixel_values.clone()
    image_seeds = _image_seeds(seeds, images_per_row)
    chosen = [masked_patches(*pair, settings, patch_format.merge_size) for pair in zip(sizes, image_seeds, strict=True)]
    chosen_P = torch.cat(chosen).to(pixel_values.device)
    patches_PCX = pixel_values.unflatten(1, (colours, -1))
    colours_IC = _colours(patches_PCX, sizes, settings, patch_format).to(pixel_values.dtype)
    colours_PC = colours_IC.repeat_interleave(torch.tensor(sizes, device=colours_IC.device), dim=0)
    return torch.where(chosen_P[:, None, None], colours_PC[:, :, None], patches_PCX).flatten(1)


def _colours(patches_PCX: Tensor, sizes: list[int], settings: BlindSettings, patch_format: PatchFormat) -> Tensor:
    """What a masked pixel of each image is, float64 (I, C)."""
    if settings.value == "mean":
        return torch.stack([image_PCX.double().mean((0, 2)) for image_PCX in patches_PCX.split(sizes)])
    black_C = torch.tensor(patch_format.black, dtype=torch.float64, device=patches_PCX.device)
    return black_C.expand(len(sizes), -1)


def masked_patches(patches: int, seed: int, settings: BlindSettings, merge_size: int) -> Tensor:
    """Which of an image's patches are masked, bool (patches,) on the CPU, in the order of rows of `pixel_values`.

    There the patches of an image token follow each other. `seed` is the image's own.
    """
    unit = merge_size**2 if settings.mask == "tokens" else 1
    units = patches // unit
    chosen = torch.zeros(units, dtype=torch.bool)
    order = torch.randperm(units, generator=torch.Generator().manual_seed(seed))
    chosen[order[: max(1, round(settings.share * units))]] = True
    return chosen.repeat_interleave(unit)


def _image_seeds(seeds: Sequence[int], images_per_row: Sequence[int]) -> Iterator[int]:
    """A seed for every image: images of one row and one size are not masked alike."""
    for seed, images in zip(seeds, images_per_row, strict=True):
        for place in range(images):
            yield seed + place


def _check(pixel_values: Tensor, sizes: list[int], seeds, images_per_row: Sequence[int], colours: int) -> None:
    if len(seeds) != len(images_per_row):
        raise ValueError(f"{len(seeds)} seeds for {len(images_per_row)} rows: each row of the batch has one")
    if sum(images_per_row) != len(sizes):
        raise ValueError(f"the rows have {sum(images_per_row)} images, but image_grid_thw has {len(sizes)}")
    if pixel_values.dim() != 2 or len(pixel_values) != sum(sizes):
        raise ValueError(
            f"pixel_values of shape {tuple(pixel_values.shape)} do not hold the {sum(sizes)} patches of image_grid_thw"
        )
    if pixel_values.shape[1] % colours:
        raise ValueError(f"a patch of {pixel_values.shape[1]} values is not of {colours} colours")
