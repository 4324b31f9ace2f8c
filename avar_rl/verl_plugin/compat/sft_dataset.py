"""verl's chat data set, with text-only rows allowed anywhere in a batch and half the work a row."""

from typing import Any

import torch
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

from avar_rl.runtime.images import open_image, rgb

_TEMPLATE_CHECKS = 32


class MixedSFTDataset(MultiTurnSFTDataset):
    """Three differences from verl 0.9.1.

    A row without an image gets empty `multi_modal_inputs`: verl leaves the key out, and its collator
    (utils/dataset/dataset_utils.py:70) reads every key from the first row of a batch, so a mixed batch fails whenever a
    text-only row comes first.

    verl tokenises every row twice, to check that the turns tokenised one by one equal the whole. Whether they do is a
    property of the chat template, so the first rows decide; the check costs a third of the time of a small row.

    Images come to the processor at their own size, see `image_sizes`.
    """

    _checked = 0

    def __getitem__(self, item: int) -> dict:
        row: dict = super().__getitem__(item)
        row.setdefault("multi_modal_inputs", {})
        return row

    def _build_messages(self, example: dict[str, Any]) -> list[dict]:
        if self.image_key in example:
            example = {**example, self.image_key: [rgb(open_image(entry)) for entry in example[self.image_key]]}
        return super()._build_messages(example)

    def sanity_check(self, input_ids: torch.Tensor, messages: list[dict], tools: list[dict], enable_thinking: bool):
        if self._checked < _TEMPLATE_CHECKS:
            self._checked += 1
            super().sanity_check(input_ids, messages, tools, enable_thinking)
