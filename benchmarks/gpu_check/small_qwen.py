"""A Qwen2.5-VL of random weights in a folder, and rows for it: what parts 3, 4 and 6 train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from data_tools.miniature.model import MINIATURES, SPECIAL_TOKENS, make_config, make_tokenizer

# Shapes: T tokens.


@dataclass(frozen=True)
class Sizes:
    """Of a model, and of the rows that it is trained on.

    text, vision: what differs from the miniature's configuration.
    grid: height and width of a row's image in patches; tokens: of a row; question: tokens of its question.
    """

    text: dict[str, Any]
    vision: dict[str, Any]
    grid: tuple[int, int]
    tokens: int
    question: int


# Qwen2.5-VL-7B but for its depth (8 of 28 layers, 4 of 32 of the vision tower) and its vocabulary (32,768 of 152,064).
# So what records nothing, tower and output layer, has no larger share of a step than in the whole model.
WIDE = Sizes(
    text=dict(
        vocab_size=32768,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=8,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32768,
        initializer_range=0.02,
        rope_parameters={"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
    ),
    vision=dict(
        depth=4,
        hidden_size=1280,
        intermediate_size=3420,
        num_heads=16,
        out_hidden_size=3584,
        fullatt_block_indexes=[3],
        initializer_range=0.02,
    ),
    grid=(48, 48),
    tokens=2048,
    question=128,
)
MINIATURE = Sizes(text={}, vision={}, grid=(8, 8), tokens=64, question=8)


def make(folder: Path, sizes: Sizes, device: str) -> None:
    """Writes model (bfloat16) and tokenizer into `folder`, unless an earlier part of this run has."""
    if (folder / "tokenizer_config.json").exists():
        return
    from transformers import Qwen2_5_VLForConditionalGeneration

    tokenizer = make_tokenizer(["How many red shapes?"])
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(config(tokenizer, sizes), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def config(tokenizer, sizes: Sizes) -> Any:
    """The model's configuration, made with its sizes: transformers derives some settings from them only then."""
    family = MINIATURES["qwen2_5_vl"]
    text, vision = {**family.text, **sizes.text}, {**family.vision, **sizes.vision}
    return make_config(tokenizer, replace(family, text=text, vision=vision))


def rows(tokenizer, sizes: Sizes, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows as verl's SFT data set gives them: a system turn, an image, a question and a response of random tokens.

    The first row is one token longer than `sizes.tokens` says, the second one shorter, so that the lengths differ.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = [sizes.tokens + {0: 1, 1: -1}.get(index, 0) * (count > 1) for index in range(count)]
    return [_row(tokenizer, sizes, length, generator) for length in lengths]


def _row(tokenizer, sizes: Sizes, length: int, generator: torch.Generator) -> dict[str, Any]:
    from verl.models.transformers.qwen2_vl import get_rope_index

    def encoded(text: str) -> Tensor:
        return torch.tensor(tokenizer.encode(text, add_special_tokens=False))

    def anything(count: int) -> Tensor:
        return torch.randint(len(SPECIAL_TOKENS), len(tokenizer), (count,), generator=generator)

    height, width = sizes.grid
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
    pads = encoded("<|image_pad|>").expand(height * width // 4)
    prompt = torch.cat([encoded(system), pads, encoded("<|vision_end|>"), anything(sizes.question)])
    prompt = torch.cat([prompt, encoded("<|im_end|>\n<|im_start|>assistant\n")])
    ids = torch.cat([prompt, anything(length - len(prompt) - 1), encoded("<|im_end|>")])
    grid = torch.tensor([[1, height, width]])
    processor = SimpleNamespace(tokenizer=tokenizer, image_processor=SimpleNamespace(merge_size=2))
    positions_3T = get_rope_index(processor, ids, image_grid_thw=grid)
    pixels = torch.randn(height * width, 1176, generator=generator)
    return {
        "input_ids": ids,
        "position_ids": torch.cat([torch.arange(len(ids))[None], positions_3T]),
        "loss_mask": (torch.arange(len(ids)) >= len(prompt)).long(),
        "multi_modal_inputs": {"pixel_values": pixels, "image_grid_thw": grid},
    }
