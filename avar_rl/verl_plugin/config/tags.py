"""What the tags of a response are to a model: ordinary text, or tokens of their own, and whether those are of use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.sample import prefill_of

if TYPE_CHECKING:
    from torch import Tensor

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_ORDINARY = 2048  # rows of the embedding that the tags' rows are held against: the first ones


def tag_notes(path: str, template_options: Mapping[str, Any] | None = None) -> list[str]:
    """What keeps a model from writing <think>…</think><answer>…</answer>, or the format reward from seeing it.

    Looks at tags that are added tokens of the tokenizer: special ones are dropped when a response is decoded; those
    whose embedding lies near the mean of the vocabulary's, or beside another tag's, have never been trained (rows that
    were drawn at random look like trained ones, and are not found). And at the chat template: does it open the thought?

    Args:
        path: a model directory in safetensors; for a name on the hub there are no notes.
        template_options: `data.apply_chat_template_kwargs`.

    Returns: sentences, one for each finding.
    """
    from transformers import AutoProcessor, AutoTokenizer

    if not Path(path).is_dir():
        return []
    added = AutoTokenizer.from_pretrained(path).added_tokens_decoder
    special = [token.content for token in added.values() if token.content in TAGS and token.special]
    plain = {token.content: number for number, token in added.items() if token.content in TAGS and not token.special}
    notes = []
    if special:
        notes.append(
            f"{', '.join(special)}: special tokens of {path}, which are dropped when a response is decoded; the format "
            "reward would be 0 for ever. Make them plain added tokens (special=False)"
        )
    if untrained := _untrained(Path(path), plain, set(added)):
        notes.append(
            f"{', '.join(untrained)}: added tokens of {path} whose embeddings look untrained; the policy will hardly "
            "write them, and the format reward stay 0. Run a cold start first, or leave them out of the tokenizer"
        )
    turn = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    processor = AutoProcessor.from_pretrained(path)
    prompt = processor.apply_chat_template(
        turn, add_generation_prompt=True, tokenize=False, **dict(template_options or {})
    )
    if prefill_of(prompt).rstrip().endswith("<think>"):
        notes.append(f"the chat template of {path} opens each thought: its <think> counts as the response's")
    return notes


def _untrained(folder: Path, tags: Mapping[str, int], added: set[int]) -> list[str]:
    """The tags (with their ids) whose rows of the input embedding look untrained, or which have none."""
    found = _embedding(folder, list(tags.values())) if tags else None
    if found is None:
        return []
    rows, block_VD = found
    ordinary_VD = block_VD[[number for number in range(len(block_VD)) if number not in added]]
    centre_D = ordinary_VD.mean(0)
    spread = float((ordinary_VD - centre_D).norm(dim=1).median())

    def looks_so(row_D: Tensor | None) -> bool:
        if row_D is None or float((row_D - centre_D).norm()) < 0.3 * spread:
            return True
        others = [other_D for other_D in rows if other_D is not None and other_D is not row_D]
        return any(float((row_D - other_D).norm()) < 0.1 * spread for other_D in others)

    return [tag for tag, row_D in zip(tags, rows, strict=True) if looks_so(row_D)]


def _embedding(folder: Path, ids: Sequence[int]) -> tuple[list[Tensor | None], Tensor] | None:
    """Rows of the input embedding in fp32: those of `ids`, None for one beyond it, and the first _ORDINARY ones.

    None where the weights are not in safetensors.
    """
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.is_file():
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({file for name, file in places.items() if name.endswith("embed_tokens.weight")})
    for file in (folder / name for name in files):
        if not file.is_file():
            continue
        with safe_open(file, "pt") as weights:
            for name in weights.keys():
                if name.endswith("embed_tokens.weight"):
                    part = weights.get_slice(name)
                    length = part.get_shape()[0]
                    rows = [part[number : number + 1][0].float() if number < length else None for number in ids]
                    return rows, part[: min(_ORDINARY, length)].float()
    return None
