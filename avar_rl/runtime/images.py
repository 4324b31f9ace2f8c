"""Images as rows hold them: bytes, a path, base64, or a mapping `{bytes, path}`. The one reader of all of these.

A text is an image where it is a data URL, or base64 of a PNG, JPEG, GIF, WebP or AVIF file; any other text is a path.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

_DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w.=+-]+)*;base64,", re.IGNORECASE)
# The first characters of base64 of PNG, JPEG, GIF, WebP (RIFF) and AVIF files, and how long it is at least
_BASE64_OF_AN_IMAGE = re.compile(
    r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|AAAA[A-Za-z0-9+/]{2}Z0eX)[A-Za-z0-9+/\s]{40,}+={0,2}\s*"
)


@contextmanager
def decoder_faults(where: str = "") -> Iterator[None]:
    """Turns whatever Pillow raises in the block into a ValueError: its decoders raise anything on a damaged file.

    Raises:
        ValueError: names the exception and what it says; `where` is the row, for the message.
    """
    from PIL import Image

    try:
        yield
    except Exception as error:  # OSError, SyntaxError, struct.error, IndexError, OverflowError, RuntimeError, …
        what = "is too large" if isinstance(error, Image.DecompressionBombError) else "cannot be read"
        text = f"an image {what} ({type(error).__name__}: {error})"
        raise ValueError(f"{where}: {text}" if where else text) from error


def image_bytes(value: Any, folder: str | Path = ".", where: str = "") -> bytes:
    """The encoded file (PNG, JPEG, …) that `value` holds or names.

    Args:
        value: bytes; a path, relative to `folder`, or a `file://` address; a data URL or base64 of an image; or a
            mapping with one of bytes, path, image.
        where: the row, for the message.

    Raises:
        ValueError: `value` is none of these, is empty, or names a file that does not exist or cannot be read.
    """
    try:
        return _image_bytes(value, Path(folder))
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def _image_bytes(value: Any, folder: Path) -> bytes:
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("bytes", "path", "image") if value.get(key)), None)
    if isinstance(value, bytes) and value:
        return value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value:
        what = "nothing" if value is None or value in ("", b"") else f"a {type(value).__name__}"
        raise ValueError(f"an image is neither bytes nor the path of a file nor base64, but {what}")
    if (url := _DATA_URL.match(value)) or _BASE64_OF_AN_IMAGE.fullmatch(value):
        try:
            return base64.b64decode("".join(value[url.end() if url else 0 :].split()), validate=True)
        except ValueError as error:
            raise ValueError(f"an image is no valid base64 ({error}): {value[:40]!r}…") from error
    try:
        path = folder / value.removeprefix("file://")
        if path.is_file():
            return path.read_bytes()
    except (OSError, ValueError) as error:  # a name too long, with a NUL, or a file that may not be read
        raise ValueError(f"an image file cannot be read ({type(error).__name__}): {value[:200]!r}") from error
    raise ValueError(f"no such image file: {path if len(value) < 300 else value[:200] + '…'}")


def open_image(value: Any, folder: str | Path = ".", where: str = "") -> Image:
    """The PIL image of what `image_bytes` reads (or of a PIL image itself); pixels are decoded when first needed.

    Raises:
        ValueError: as `image_bytes`, or the bytes are no image, a broken one or one of absurdly many pixels.
    """
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("image"), Image.Image):
        return value["image"]
    return opened(image_bytes(value, folder, where), where)


def opened(data: bytes, where: str = "") -> Image:
    """The PIL image of an encoded file; pixels are decoded when first needed. PostScript is no image here: Pillow has
    Ghostscript run it, and what a data set holds is never executed.

    Raises:
        ValueError: the bytes are no image, a broken one or one of absurdly many pixels; `where` is the row.
    """
    from PIL import Image

    Image.init()
    with decoder_faults(where):
        return Image.open(io.BytesIO(data), formats=[name for name in Image.OPEN if name != "EPS"])


def rgb(image: Image, where: str = "") -> Image:
    """An image decoded to RGB, what is transparent in it on white: what models are given, in training and after it.

    Raises:
        ValueError: it is broken; a file that ends too early shows when its pixels are decoded.
    """
    from PIL import Image as pillow

    with decoder_faults(where):
        if not image.has_transparency_data:
            return image.convert("RGB")
        white = pillow.new("RGBA", image.size, "white")
        return pillow.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def image_size(value: Any, folder: str | Path = ".", where: str = "") -> tuple[int, int]:
    """(width, height) in pixels, without decoding the pixels; arguments and errors as for `open_image`."""
    return open_image(value, folder, where).size
