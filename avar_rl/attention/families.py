"""The model families that avar_rl trains and measures, by transformers' `model_type`.

All write images as <|vision_start|><|image_pad|>…<|vision_end|> (videos with <|video_pad|>) in Qwen's chat markup, and
call attention through transformers' registry. Qwen3-VL also adds visual features to the hidden states of its first
layers (deep-stack), at the same pad tokens, so its IMAGE span is the same; between the frames of a video it writes time
stamps, which are USER text.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelFamily:
    """What training needs to know of a family.

    processor: the class of its processor in transformers, by whose name verl chooses the positions of image tokens.
    ulysses: whether span masses are recorded under Ulysses sequence parallelism.
    """

    processor: str
    ulysses: bool


FAMILIES = {
    "qwen2_vl": ModelFamily("Qwen2VLProcessor", ulysses=True),
    "qwen2_5_vl": ModelFamily("Qwen2_5_VLProcessor", ulysses=True),
    "qwen3_vl": ModelFamily("Qwen3VLProcessor", ulysses=False),  # its attention, unlike theirs, is not replaced by verl
}
# The special tokens of these families' tokenizers. Where one stands in a text, the tokenizer makes it that token.
CHAT_MARKUP = tuple(
    f"<|{name}|>"
    for name in (
        *("endoftext", "im_start", "im_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"),
        *("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end"),
        *("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep"),
    )
)


def require_supported(model_type: str) -> ModelFamily:
    """The family of a `model_type`. ValueError: it has no support; the message says what it would take to add it."""
    if model_type not in FAMILIES:
        raise ValueError(
            f"model type {model_type!r} has no support (there is: {', '.join(FAMILIES)}). To add it: its chat markup "
            "and image tokens in avar_rl/attention/roles.py, a test that its masses equal its eager maps in "
            "tests/numerics/test_families.py, and its name in avar_rl/attention/families.py"
        )
    return FAMILIES[model_type]
