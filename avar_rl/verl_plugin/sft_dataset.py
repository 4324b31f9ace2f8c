"""verl's chat data set, with text-only rows allowed anywhere in a batch."""

from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset


class MixedSFTDataset(MultiTurnSFTDataset):
    """A row without an image gets empty `multi_modal_inputs`.

    verl 0.9.1 leaves the key out, and its collator (utils/dataset/dataset_utils.py:70) reads every key from the first
    row of the batch: a mixed batch fails whenever a text-only row comes first.
    """

    def __getitem__(self, item: int) -> dict:
        row = super().__getitem__(item)
        row.setdefault("multi_modal_inputs", {})
        return row
