"""Checks of a model against its family: what would fail, or go wrong unseen, once workers run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from avar_rl.attention.families import FAMILIES, require_supported
from avar_rl.runtime.chat_template import writes_system_turn
from data_tools.formats.rows import parquet_rows

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

_COPY = "copy the processor's files from the base model"


def check_processor(path: str, config: PreTrainedConfig, processor: ProcessorMixin) -> None:
    """Checks that a processor is its model's: its class, and what it makes of an image.

    verl chooses positions of tokens by these class names, and where it knows none it trains on without images' grids.

    Args:
        path: of the model, for the message.
        config: the model's configuration, of a supported family.

    Raises:
        ValueError: names what does not fit.
    """
    wanted, found = require_supported(config.model_type).processor, type(processor).__name__
    if found != wanted:
        raise ValueError(
            f"model.path={path}: its processor is a {found}, and a {config.model_type} needs a {wanted}; {_COPY}"
        )
    images: Any = processor
    found = type(images.image_processor).__name__
    if "Qwen2VLImageProcessor" not in found:
        raise ValueError(
            f"model.path={path}: its image processor is a {found}, which gives no grid of patches (image_grid_thw), "
            f"and a {config.model_type} needs a Qwen2VLImageProcessor; {_COPY}"
        )
    faults = _image_faults(config, processor)
    if faults:
        raise ValueError(f"model.path={path}: its processor does not fit the model: {'; '.join(faults)}; {_COPY}")


def _image_faults(config: PreTrainedConfig, processor: Any) -> list[str]:
    """What does not fit when the processor takes an image."""
    from PIL import Image

    settings: Any = config
    vision = settings.vision_config
    image = Image.new("RGB", (8 * vision.patch_size,) * 2)
    text = "<|vision_start|><|image_pad|><|vision_end|>"
    inputs = processor(text=[text], images=[image], return_tensors="pt")
    patches, width = inputs["pixel_values"].shape
    wanted = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    faults = []
    if width != wanted:
        faults.append(f"it cuts patches of {width} values, and the vision tower takes {wanted}")
    tokens = int((inputs["input_ids"] == settings.image_token_id).sum())
    if tokens != patches // vision.spatial_merge_size**2:
        faults.append(
            f"an image of {patches} patches becomes {tokens} tokens of the model's image_token_id "
            f"{settings.image_token_id}, and the vision tower gives {patches // vision.spatial_merge_size**2}"
        )
    return faults


def check_ulysses(model_type: str, size: int) -> None:
    """Checks that span masses are recorded under Ulysses sequence parallelism over `size` ranks.

    Raises:
        ValueError: the model's family has no such support.
    """
    if size > 1 and not require_supported(model_type).ulysses:
        able = " and ".join(name for name, family in FAMILIES.items() if family.ulysses)
        raise ValueError(
            f"under Ulysses sequence parallelism span masses are recorded for {able}, not {model_type}: set "
            "ulysses_sequence_parallel_size=1"
        )


def check_system_turns(
    path: str, processor: ProcessorMixin, files: Sequence[str], column: str, options: Mapping[str, Any]
) -> None:
    """Checks that every conversation gets a system turn, which span masses are measured against.

    Args:
        path: of the model, for the message.
        files: parquet files with a column of turns, `column`.
        options: of the chat template, `data.apply_chat_template_kwargs`.

    Raises:
        ValueError: the chat template writes none by itself (Qwen3-VL's does not), and a row has none.
    """
    if writes_system_turn(processor, **options):
        return
    for file in files:
        row = _row_without_system(file, column)
        if row is not None:
            raise ValueError(
                f"row {row} of {file} has no system turn, and the chat template of {path} writes none by itself "
                "(Qwen3-VL's does not), but span masses are measured against it: make a model folder whose template "
                "writes one with `python -m avar_rl.base_model MODEL OUT --system-prompt TEXT`, begin each row with a "
                "turn of the role system, or do without masses (SFT: avar.guidance.alpha=0 and beta=0; GRPO: no "
                "attention reward)"
            )


def _row_without_system(file: str, column: str) -> int | None:
    for place, row in enumerate(parquet_rows(file, [column])):
        turns = row[column] or []
        if not (isinstance(turns, list) and all(isinstance(turn, dict) and "role" in turn for turn in turns)):
            raise ValueError(f"row {place} of {file}: the column {column} is no list of turns, each with a role")
        if not any(turn["role"] == "system" for turn in turns):
            return place
    return None


def check_turns_add_up(path: str, processor: ProcessorMixin, options: Mapping[str, Any]) -> None:
    """Checks that the chat template writes a response alone as it does after its question.

    verl's SFT data set writes a conversation turn by turn and stops at the first row where the two differ.

    Raises:
        ValueError: they differ, as with the templates of models that always think.
    """
    write: Any = processor.apply_chat_template
    turns = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in (("user", "?"), ("assistant", "!"))
    ]
    question, response, whole = (write(part, tokenize=False, **options) for part in (turns[:1], turns[1:], turns))
    twice = write(turns[:1] * 2, tokenize=False, **options)
    start = question[: 2 * len(question) - len(twice)]  # a system turn that the template writes by itself
    if question + response.removeprefix(start) != whole:
        raise ValueError(
            f"model.path={path}: its chat template writes a response after its question otherwise than alone "
            "(templates of models that always think do so), and verl's SFT data set goes turn by turn: use the model's "
            "Instruct version, or a chat template without that"
        )
