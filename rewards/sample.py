"""What a reward function is given: one response, with the question that it answers.

Shapes: T response tokens, L recorded layers.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One response. A reward whose parameter is annotated `Sample` runs during the rollout.

    question: the text of the user's turns, without image marks.
    response: decoded, without special tokens.
    gold: the gold answer of the data row.
    row: the other columns of the data row (`row["extra_info"]`, `row["data_source"]`, your own), as the file has them.
    row_id: `extra_info.id`, else `extra_info.index`.
    image_sizes: (width, height) in pixels, in order; () for a question without images.
    response_tokens: length of the response in tokens; None where it is not known (outside training).
    max_response_tokens: the limit at which a response is cut; None where there is none.
    parts: the rewards scored before this one, by name; None: not applicable. Listed in recipe order, gates first.
    options: the texts of a multiple choice, A first (`extra_info.options`); () where there are none.
    """

    question: str
    response: str
    gold: str
    row: Mapping[str, Any] = field(default_factory=dict)
    row_id: str = ""
    image_sizes: tuple[tuple[int, int], ...] = ()
    response_tokens: int | None = None
    max_response_tokens: int | None = None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Masses:
    """Attention mass of each response token on the image and on the system turn, heads averaged: float32 (T, L) each.

    Tokens that the policy did not write (a tool's, say) are left out.
    """

    image_TL: Tensor
    system_TL: Tensor


@dataclass(frozen=True)
class AttentionSample(Sample):
    """One response with its attention. A reward annotated `AttentionSample` runs after the actor's forward pass.

    masses: of this response.
    group: of all responses to the same question, this one included, at index `position`.
    """

    masses: Masses | None = None
    group: tuple[Masses, ...] = ()
    position: int = 0


def question_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """The text of the user's turns. A turn's content is text with `<image>` marks, or a list of typed parts."""
    texts = []
    for message in messages:
        if message["role"] != "user":
            continue
        content = message["content"]
        parts = [content] if isinstance(content, str) else [p["text"] for p in content if p.get("type") == "text"]
        texts.append("".join(parts).replace("<image>", "").strip())
    return "\n".join(texts)


def row_options(extra: Mapping[str, Any] | None) -> tuple[str, ...]:
    """`options` of a row's `extra_info`; () without them. ValueError: they are no list of texts."""
    found = (extra or {}).get("options")
    if found is None:
        return ()
    if not isinstance(found, list | tuple) or not all(isinstance(option, str) for option in found):
        raise ValueError(f"extra_info.options is {found!r}; it must be a list of texts")
    return tuple(found)


def image_size(image: Any) -> tuple[int, int]:
    """(width, height) of a PIL image, of an encoded file (`{"bytes": …}`), or of a path (`{"path"/"image": …}`)."""
    from PIL import Image

    if isinstance(image, Mapping):
        known = [image[key] for key in ("image", "bytes", "path") if image.get(key) is not None]
        if not known:
            raise ValueError(f"an image with none of the keys image, bytes, path: {sorted(image)}")
        return image_size(known[0])
    if isinstance(image, bytes):
        image = Image.open(io.BytesIO(image))
    elif isinstance(image, str | os.PathLike):
        image = Image.open(str(image).removeprefix("file://"))
    return image.size
