"""A teacher call before it is made, and its key: the hash of all that decides the answer."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avar_rl.runtime.images import image_bytes
from data_tools.formats.rows import IMAGE_PLACEHOLDER
from data_tools.synthesis.inputs.prompts import Prompt
from data_tools.synthesis.inputs.recipe import Stage
from data_tools.synthesis.inputs.selection import Row

_FORMATS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}


@dataclass(frozen=True)
class Request:
    """A call of one stage for one row: `turns` are (role, text); `images` (files) go before the last turn's text."""

    key: str
    row: str
    stage: str
    sample: int
    turns: tuple[tuple[str, str], ...]
    images: tuple[bytes, ...]

    def messages(self) -> list[dict[str, Any]]:
        """The turns in the form of the OpenAI API, images as data URLs."""
        messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in self.turns]
        if self.images:
            urls = [{"type": "image_url", "image_url": {"url": _url(image)}} for image in self.images]
            messages[-1]["content"] = [*urls, {"type": "text", "text": messages[-1]["content"]}]
        return messages


def make_request(
    row: Row, stage: str, settings: Stage, prompt: Prompt, sample: int, inputs: Mapping[str, str]
) -> Request:
    """The call of `stage` for `row`. Its key changes with the row, the sample number, model, sampling, text and images.

    The endpoint is not part of the key: the same model elsewhere gives no reason to pay again.

    Raises:
        ValueError: an image is missing, or in an unknown format.
    """
    question = row.sample.text.replace(IMAGE_PLACEHOLDER, "[image]")
    turns = tuple(prompt.turns({"question": question, **inputs}))
    images = tuple(_image(image, row) for image in row.sample.images) if stage == "describe" else ()
    digests = [hashlib.sha256(image).hexdigest() for image in images]
    decides = [row.name, stage, sample, settings.model, dict(settings.sampling), turns, digests]
    key = hashlib.sha256(json.dumps(decides, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    return Request(key, row.name, stage, sample, turns, images)


def _image(image: bytes | str, row: Row) -> bytes:
    data = image_bytes(image, row.folder)
    _format(data)
    return data


def _format(image: bytes) -> str:
    for start, name in _FORMATS.items():
        if image.startswith(start):
            return name
    raise ValueError(f"an image that is no PNG, JPEG, GIF or WebP (it starts with {image[:4]!r})")


def _url(image: bytes) -> str:
    return f"data:image/{_format(image)};base64,{base64.b64encode(image).decode()}"
