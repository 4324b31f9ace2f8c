"""Make the miniature model: `python -m data_tools.miniature.model --out DIR --data DIR [--family qwen3_vl] [--seed 0]`.

A real Qwen2-VL, Qwen2.5-VL or Qwen3-VL (architecture, processor, chat template and special tokens) of about a million
parameters with random weights. Its byte-level BPE tokenizer is trained on the text of the data of the miniature world,
digits one by one. `<think>` and `<answer>` are ordinary text, as in the full-size model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.chat_template import with_system_turn
from avar_rl.runtime.files import read_parquet, replacing

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SYSTEM_PROMPT = "You are a helpful assistant."
CHAT_SPLITS = ("pretrain", "sft_train")  # whose text trains the tokenizer
# The pre-tokenizer of Qwen2.5: words with one leading mark or space, single digits, runs of punctuation, line breaks.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What the template published with Qwen3-VL writes, but for tools.
TURNS_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As published with Qwen2-VL and Qwen2.5-VL, which write a system turn where a conversation has none.
CHAT_TEMPLATE = TURNS_TEMPLATE.replace(
    "{% for message in messages %}",
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
    "{% endif %}",
)
HIDDEN = 128
HEADS = 4  # head size 32 is the smallest that vLLM supports on a CPU
LAYERS = 4
# The usual 0.02 suits wide layers; at width 128 a spread near 1/sqrt(128) learns to read the image in far fewer steps.
INIT_STD = 0.06
_TEXT = dict(
    hidden_size=HIDDEN,
    intermediate_size=256,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    num_key_value_heads=2,
    max_position_embeddings=2048,
    bos_token_id=None,
    initializer_range=INIT_STD,
)
_VISION = dict(
    depth=2,
    hidden_size=64,
    num_heads=4,
    spatial_merge_size=2,
    temporal_patch_size=2,
    initializer_range=INIT_STD,
)


def _rope(*section: int, **more: bool) -> dict[str, Any]:
    """How time, height and width share the 16 rotary pairs of a head."""
    return {"rope_parameters": {"rope_type": "default", "mrope_section": [*section], "rope_theta": 10000.0} | more}


@dataclass(frozen=True)
class Miniature:
    """What the miniature of a model family has of its own.

    `classes` is what its classes in transformers are called, before Config, Processor and ForConditionalGeneration.
    `text` and `vision` are settings of its configuration beside those that all share. `tied` is whether the input
    embedding is the output layer too.
    """

    name: str
    classes: str
    vision: Mapping[str, Any]
    text: Mapping[str, Any] = field(default_factory=lambda: _rope(4, 6, 6))  # Qwen's proportion 16:24:24
    patch: int = 14
    pixels: Mapping[str, Any] = field(default_factory=dict)  # of the image processor: mean and spread of a channel
    tied: bool = False
    template: str = CHAT_TEMPLATE
    video_processor: str = "Qwen2VLVideoProcessor"


MINIATURES = {
    "qwen2_vl": Miniature("Qwen2-VL", "Qwen2VL", dict(embed_dim=64, hidden_size=HIDDEN, mlp_ratio=2)),
    "qwen2_5_vl": Miniature(
        "Qwen2.5-VL",
        "Qwen2_5_VL",
        dict(intermediate_size=128, out_hidden_size=HIDDEN, window_size=112, fullatt_block_indexes=[1]),
    ),
    # Of its three layers, the first two hand visual features to the language model's first two (deep-stack). Its head
    # dim is a setting of its own, and its sizes up to 4B tie their embeddings. For masses on SYSTEM its template must
    # be made to write a system turn.
    "qwen3_vl": Miniature(
        "Qwen3-VL",
        "Qwen3VL",
        dict(depth=3, intermediate_size=128, out_hidden_size=HIDDEN)
        | dict(deepstack_visual_indexes=[0, 1], num_position_embeddings=64),
        # Published ones name no architecture here, and with them vLLM 0.28 fails on a CPU.
        text=dict(head_dim=HIDDEN // HEADS, architectures=["Qwen3ForCausalLM"])
        | _rope(6, 5, 5, mrope_interleaved=True),
        patch=16,
        pixels=dict(image_mean=[0.5] * 3, image_std=[0.5] * 3),
        tied=True,
        template=with_system_turn(TURNS_TEMPLATE, SYSTEM_PROMPT),
        video_processor="Qwen3VLVideoProcessor",
    ),
}


def make_tokenizer(texts: Iterable[str], vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Qwen's pre-tokenizer and special tokens, trained on `texts`.

    `vocab_size` is an upper bound of its vocabulary.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    # The template's own words get tokens of their own too.
    frame = f"system\n{SYSTEM_PROMPT}\nuser\nassistant\n"
    bpe.train_from_iterator([*texts, *[frame] * 100], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def _ids(tokenizer: PreTrainedTokenizerFast, *tokens: str) -> list[int]:
    found = tokenizer.convert_tokens_to_ids(list(tokens))
    assert isinstance(found, list)  # one id for each of a list of tokens
    return found


def make_config(tokenizer: PreTrainedTokenizerFast, family: Miniature) -> PreTrainedConfig:
    """The family's configuration at miniature size; the vocabulary is exactly the tokenizer's."""
    import transformers

    ids = dict(zip(SPECIAL_TOKENS, _ids(tokenizer, *SPECIAL_TOKENS), strict=True))
    ends = dict(eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"])
    text = dict(vocab_size=len(tokenizer), tie_word_embeddings=family.tied, **ends)
    return getattr(transformers, f"{family.classes}Config")(
        text_config={**text, **_TEXT, **family.text},
        vision_config={**_VISION, "patch_size": family.patch, **family.vision},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=family.tied,
    )


def make_processor(tokenizer: PreTrainedTokenizerFast, family: Miniature) -> ProcessorMixin:
    """The family's processor. An image of 84x84 pixels is 6x6 patches and 9 tokens, none gets over 64 tokens.

    Patches of 14 pixels take 84x84 as they are; for patches of 16 it is resized to 96x96.
    """
    import transformers

    size = {"shortest_edge": (4 * family.patch) ** 2, "longest_edge": (16 * family.patch) ** 2}
    seen = dict(size=size, patch_size=family.patch)
    tokenizer.chat_template = family.template
    return getattr(transformers, f"{family.classes}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(**seen, **family.pixels),
        tokenizer=tokenizer,
        video_processor=getattr(transformers, family.video_processor)(**seen),
        chat_template=family.template,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int, family: Miniature) -> PreTrainedModel:
    """The model with random weights (float32) that depend on `seed` only; torch's own random state is left alone."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = make_config(tokenizer, family)
        model = getattr(transformers, f"{family.classes}ForConditionalGeneration")(config).float()
    end, pad = _ids(tokenizer, "<|im_end|>", "<|endoftext|>")
    model.generation_config = transformers.GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad)
    return model


def corpus(data: Path) -> list[str]:
    """All text of the chat rows in folder `data`: questions and responses, without image places.

    Raises:
        ValueError: a file of them is missing or no readable data file.
    """
    try:
        rows = [row for split in CHAT_SPLITS for row in read_parquet(data / f"{split}.parquet", columns=["messages"])]
    except ValueError as error:
        raise ValueError(f"{error}; make it with `python -m data_tools.miniature.data --out {data}`") from error
    return [turn["content"].replace("<image>", "") for row in rows for turn in row["messages"]]


def save(out: Path, texts: Iterable[str], seed: int, family: str = "qwen2_5_vl") -> int:
    """Writes model, processor and generation config to the folder `out`, whole or not at all.

    `texts` train the tokenizer, `seed` decides the weights, `family` is a key of `MINIATURES`. Returns the number of
    parameters.
    """
    tokenizer = make_tokenizer(texts)
    model = make_model(tokenizer, seed, MINIATURES[family])
    with replacing(out) as partial:
        model.save_pretrained(partial)
        make_processor(tokenizer, MINIATURES[family]).save_pretrained(partial)
    return sum(p.numel() for p in model.parameters())


def check_out(out: Path) -> None:
    """Raises ValueError where the folder `out` holds something that is not a model, which must not be replaced."""
    if out.is_file():
        raise ValueError(f"{out} is a file; --out names the folder of the model")
    if out.exists() and any(out.iterdir()) and not (out / "config.json").is_file():
        raise ValueError(f"{out} exists and is not a model folder; choose another --out")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.miniature.model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the model; a model there is replaced")
    parser.add_argument("--data", type=Path, required=True, help="folder made by data_tools.miniature.data")
    parser.add_argument("--family", choices=MINIATURES, default="qwen2_5_vl", help="of the model (default qwen2_5_vl)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default 0)")
    args = parser.parse_args(argv)
    try:
        check_out(args.out)
        parameters = save(args.out, corpus(args.data), args.seed, args.family)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {MINIATURES[args.family].name} of {parameters / 1e6:.2f}M parameters, seed {args.seed}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
