"""One encoded image as training may use it: checked, put upright, flattened, and fingerprinted.

Rules, in this order; an image that none of them touches keeps its bytes:
  unreadable, truncated, over `max_pixels` (a decompression bomb is refused from its header), or with one side over 200
  times the other (Qwen's processors refuse it): ValueError
  animated: the first frame              a format other than PNG, JPEG, WebP: stored anew
  EXIF orientation: rotated as it says   transparent: flattened onto white
  CMYK and other colour spaces: RGB      16 bits a channel: scaled to 8
A palette without transparency is left as it is. What changes is stored anew, as JPEG (quality 95, no chroma
subsampling) where it was JPEG, else as PNG, without metadata.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from avar_rl.runtime.images import decoder_faults, opened
from avar_rl.runtime.pixels import MAX_RATIO

MAX_PIXELS = 64_000_000
PASSED_FORMATS = {"PNG": "png", "JPEG": "jpg", "MPO": "jpg", "WEBP": "webp"}
PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I", "F")
ORIENTATION = 0x0112  # EXIF tag
ROTATED = "rotated by EXIF"
HASH_ROWS = 16
HASH_STEP = 4  # grey levels: less is noise


class Fingerprint(NamedTuple):
    """What is remembered of an image: the SHA-256 digest of its encoded bytes, and its `difference_hash`."""

    digest: bytes
    hash: bytes


@dataclass(frozen=True)
class Picture:
    """An image that training may use: `data` is the encoded file, `suffix` its format (png, jpg, webp), `width` and
    `height` are in pixels, `changes` names the rules that changed it."""

    data: bytes
    suffix: str
    width: int
    height: int
    changes: tuple[str, ...]
    fingerprint: Fingerprint


def read_picture(data: bytes, max_pixels: int = MAX_PIXELS) -> Picture:
    """What the rules of this module make of an encoded image of at most `max_pixels` pixels.

    Raises:
        ValueError: it cannot be read or used; says why.
    """
    if not data:
        raise ValueError("no bytes")
    with opened(data) as image:
        _check_size(image.width, image.height, max_pixels)
        with decoder_faults():
            return _picture(data, image)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ValueError(f"too large: {width} x {height} pixels, the limit is {max_pixels} in all")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ValueError(f"too narrow: {width} x {height}, one side over {MAX_RATIO} times the other")


def _picture(data: bytes, image) -> Picture:
    from PIL import ImageOps

    source, changes = image.format, []
    if source != "MPO" and getattr(image, "is_animated", False):  # an MPO is a JPEG with more pictures behind it
        changes.append("first frame of an animation")
    if source not in PASSED_FORMATS:
        changes.append(f"from {source}")
    if image.getexif().get(ORIENTATION, 1) in range(2, 9):
        changes.append(ROTATED)
    if not changes and source in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
        width, height = image.size
        image.draft("L", (HASH_ROWS * 8, HASH_ROWS * 8))  # a coarse decode finds damage and makes the hash
        image.load()
        return _made(data, "jpg", width, height, (), image)
    image.load()
    if ROTATED in changes:
        image = ImageOps.exif_transpose(image)
    image, recoloured = _plain(image)
    changes += recoloured
    suffix = PASSED_FORMATS.get(source, "png")
    if changes:
        suffix = "jpg" if suffix == "jpg" else "png"
        data = _encoded(image, suffix)
    return _made(data, suffix, image.width, image.height, tuple(changes), image)


def _plain(image):
    """The image as the processors' conversion to RGB leaves it right, and what had to be done for that."""
    from PIL import Image

    if image.mode in DEEP_MODES:
        return _eight_bits(image), ["16 bits to 8"]
    if image.mode not in PLAIN_MODES:
        return image.convert("RGB"), [f"{image.mode} to RGB"]
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema()[0] < 255:
            white = Image.new("RGBA", rgba.size, "white")
            return Image.alpha_composite(white, rgba).convert("RGB"), ["flattened onto white"]
    return image, []


def _eight_bits(image):
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    # Integers are 16-bit by their format's definition; floats have no fixed range.
    top = max(float(values.max()), 1e-9) if image.mode == "F" else 65535.0
    return Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8))


def _encoded(image, suffix: str) -> bytes:
    file = io.BytesIO()
    if suffix == "jpg":
        image.save(file, "JPEG", quality=95, subsampling=0)
    else:
        image.info.pop("transparency", None)
        image.save(file, "PNG")
    return file.getvalue()


def _made(data: bytes, suffix: str, width: int, height: int, changes: tuple[str, ...], image) -> Picture:
    fingerprint = Fingerprint(hashlib.sha256(data).digest(), difference_hash(image))
    return Picture(data, suffix, width, height, changes, fingerprint)


def difference_hash(image) -> bytes:
    """A hash of what a PIL image shows, 512 bits: at 16 x 16 places, does grey rise, and does it fall, to the right?

    A difference hash with a dead zone of 4 levels: without it, the noise of flat regions (most of a diagram) fills half
    of the bits.
    """
    from PIL import Image

    grey = image.convert("L").resize((HASH_ROWS + 1, HASH_ROWS), Image.Resampling.BOX)
    step = np.diff(np.asarray(grey, dtype=np.int16), axis=1)
    return np.packbits([step > HASH_STEP, step < -HASH_STEP]).tobytes()
