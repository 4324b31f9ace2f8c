"""Lengths in tokens by the tokenizer of the model that is to be trained; without transformers, so without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def token_counter(name: str) -> Callable[[str], int]:
    """A function that gives the number of tokens of a text.

    Args:
        name: a model folder, or a hub name.

    Raises:
        ValueError: there is no tokenizer.json.
    """
    from tokenizers import Tokenizer

    path = Path(name)
    try:
        if path.is_dir():
            tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        else:
            tokenizer = Tokenizer.from_pretrained(name)
    except Exception as error:
        raise ValueError(
            f"filters.tokenizer: {name} is no folder with tokenizer.json, nor a hub name ({error})"
        ) from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
