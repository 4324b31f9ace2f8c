"""The images of a micro-batch, masked for a blind pass, and the log-probabilities that it yields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensordict import NonTensorData, TensorDict
from torch import Tensor
from verl.workers.utils.padding import response_from_nested

from avar_rl.blind import BlindSettings, PatchFormat, mask_pixels, response_seed

BLIND_LOG_PROBS = "blind_log_probs"  # the column that comes back: one number for each response token


def blinded(
    model_inputs: Mapping[str, Any], micro_batch: TensorDict, settings: BlindSettings, patch_format: PatchFormat
) -> dict[str, Any]:
    """What the model is given for a micro-batch, with masked images; without any image, as it is.

    A row's patches are drawn by its own token ids (`avar_rl.blind.response_seed`), so that they are the same whatever
    lies beside it, and in every pass over it.

    Args:
        model_inputs: of `prepare_model_inputs`, padded or packed; nothing in it is changed.
        micro_batch: with jagged `input_ids` and the `multi_modal_inputs` of each row.
    """
    found = dict(model_inputs)
    if found.get("pixel_values") is None:
        return found
    rows: Any = micro_batch["input_ids"]
    found["pixel_values"] = mask_pixels(
        found["pixel_values"],
        found["image_grid_thw"],
        [response_seed(ids_T, settings.seed) for ids_T in rows.unbind()],
        settings,
        patch_format,
        images_per_row=images_per_row(micro_batch.get("multi_modal_inputs")),
    )
    return found


def images_per_row(multi_modal_inputs: Iterable[Any]) -> list[int]:
    """How many images each row has; a filler row of verl's, and a row of text, have none."""
    rows = (row.data if isinstance(row, NonTensorData) else row for row in multi_modal_inputs)
    grids = (None if row is None else row.get("image_grid_thw") for row in rows)
    return [0 if grid is None else len(grid) for grid in grids]


def blind_outputs(model_output: Mapping[str, Tensor], micro_batch: TensorDict) -> dict[str, Tensor]:
    """What a blind pass gives back: `BLIND_LOG_PROBS` of the response tokens in place of verl's `log_probs`.

    verl carries all outputs of a pass to the queue by their names, where `log_probs` would replace those of the pass
    before.
    """
    found = dict(model_output)
    found[BLIND_LOG_PROBS] = response_from_nested(found.pop("log_probs"), micro_batch["response_mask"])
    return found
