"""Images as rows hold them: encoded bytes, a path, or a mapping `{bytes, path}`. The one reader of all of these."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


def image_bytes(value: Any, folder: str | Path = ".", where: str = "") -> bytes:
    """The encoded file (PNG, JPEG, …) that `value` holds or names.

    Args:
        value: bytes; a path, relative to `folder`, or a `file://` address; or a mapping with one of bytes, path, image.
        where: the row, for the message.

    Raises:
        ValueError: `value` is none of these, is empty, or names a file that does not exist.
    """
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("bytes", "path", "image") if value.get(key)), None)
    if isinstance(value, bytes) and value:
        return value
    if isinstance(value, str | os.PathLike):
        path = Path(folder) / str(value).removeprefix("file://")
        if path.is_file():
            return path.read_bytes()
        raise ValueError(f"{where}{': ' if where else ''}no such image file: {path}")
    raise ValueError(
        f"{where}{': ' if where else ''}an image is neither bytes nor the path of a file: {str(value)[:80]!r}"
    )


def open_image(value: Any, folder: str | Path = ".", where: str = "") -> Image:
    """The PIL image of what `image_bytes` reads (or of a PIL image itself); pixels are decoded when first needed.

    Raises:
        ValueError: as `image_bytes`, or the bytes are no image, a broken one or one of absurdly many pixels.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("image"), Image.Image):
        return value["image"]
    try:
        return Image.open(io.BytesIO(image_bytes(value, folder, where)))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where}{': ' if where else ''}an image cannot be read ({error})") from error


def image_size(value: Any, folder: str | Path = ".", where: str = "") -> tuple[int, int]:
    """(width, height) in pixels, without decoding the pixels; arguments and errors as for `open_image`."""
    return open_image(value, folder, where).size
