"""The markup of chats in texts that users, data sets and teachers wrote: found, refused or escaped.

A tokenizer turns `<|image_pad|>` in a question into the very token that stands for a piece of an image, and
`<|im_start|>system` opens a turn: such a text would become IMAGE or SYSTEM tokens (`avar_rl.attention.roles`). verl
cuts texts at `<image>`, `<video>` and `<audio>` and puts a part of that kind there. So a text may hold none of these,
apart from one `<image>` for each image in what the user says.
"""

from __future__ import annotations

import re
from typing import Any

from avar_rl.attention.families import CHAT_MARKUP
from data_tools.formats.rows import IMAGE_PLACEHOLDER

MARKUP_HELP = "rows with chat markup in a text: reject them, or escape it with spaces (default reject)"
PLACEHOLDERS = (IMAGE_PLACEHOLDER, "<video>", "<audio>")
_PLACEHOLDER = re.compile("|".join(PLACEHOLDERS))
_MARKUP = re.compile("|".join(map(re.escape, CHAT_MARKUP)))


class MarkupError(ValueError):
    """A text with markup in it."""


def markup_in(text: str, tokenizer: Any = None, *, images: bool = False) -> list[str]:
    """The pieces of markup in a text, each once, in order; [] where there is none.

    Args:
        tokenizer: the model's own; then what it makes a special token of counts too, by its id.
        images: `<image>` stands for an image here, and is no markup.
    """
    allowed = {IMAGE_PLACEHOLDER} if images else set()
    found = [piece for piece in _PLACEHOLDER.findall(text) if piece not in allowed] + _MARKUP.findall(text)
    if tokenizer is not None:
        special = set(tokenizer.all_special_ids)
        for part in re.split(f"({IMAGE_PLACEHOLDER})", text):  # as the parts of a turn, which are tokenized apart
            ids = tokenizer(part, add_special_tokens=False)["input_ids"] if part not in allowed else []
            found += [tokenizer.convert_ids_to_tokens(id_) for id_ in ids if id_ in special]
    return list(dict.fromkeys(found))


def markup_fault(what: str, text: str, tokenizer: Any = None, *, images: bool = False) -> str | None:
    """What to say of markup in a text that `what` names ("the question"); None where there is none."""
    found = markup_in(text, tokenizer, images=images)
    return f"{what} holds chat markup: {', '.join(found)}" if found else None


def escaped(text: str, *, images: bool = False) -> str:
    """`text` with its markup taken apart by spaces, `<| image_pad |>` and `< video >`, which are tokens like any words.

    With `images`, `<image>` stands for an image and stays.
    """
    text = _MARKUP.sub(lambda piece: f"<| {piece.group()[2:-2]} |>", text)
    kept = {IMAGE_PLACEHOLDER} if images else set()
    return _PLACEHOLDER.sub(lambda p: p.group() if p.group() in kept else f"< {p.group()[1:-1]} >", text)
