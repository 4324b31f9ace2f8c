"""A model's sizes from its configuration alone: it is built on the meta device, without weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from avar_rl.estimate import ModelSizes

if TYPE_CHECKING:
    from torch.nn import Module


def model_sizes(path: str) -> tuple[ModelSizes, Any]:
    """The sizes of a model, and the module without weights that they were read from.

    Args:
        path: a model directory, of which config.json is enough, or a name on the hub.

    Raises:
        ValueError: there is no such configuration here, and the hub gives none.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(path)
    except OSError as error:
        raise ValueError(f"the configuration of {path} cannot be read ({str(error).splitlines()[0]})") from error
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return _sizes(model), model


def _sizes(model: Any) -> ModelSizes:
    from verl.utils.fsdp_utils import _select_fsdp2_wrap_targets

    text, vision, tower = model.config.get_text_config(), model.config.vision_config, model.model.visual
    layers = model.model.language_model.layers
    units = [_count(unit) for unit in _select_fsdp2_wrap_targets(model, list(model._no_split_modules))]
    head_size = layers[0].self_attn.head_dim
    channels = tower.patch_embed.proj.in_channels
    return ModelSizes(
        parameters=_count(model),
        root=_count(model) - sum(units),
        unit=max(units),
        layer=_count(layers[0]),
        tensors=len(list(model.parameters())),
        layers=len(layers),
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        vocabulary=text.vocab_size,
        heads=text.num_attention_heads,
        key_value_heads=text.num_key_value_heads,
        attention=text.num_attention_heads * head_size,
        key_value=text.num_key_value_heads * head_size,
        vision_layers=len(tower.blocks),
        vision_hidden=tower.blocks[0].attn.qkv.in_features,
        vision_intermediate=max(linear.out_features for _, linear in _linears(tower.blocks[0].mlp)),
        patch_size=vision.patch_size,
        patch_values=channels * vision.temporal_patch_size * vision.patch_size**2,
        patches_per_token=vision.spatial_merge_size**2,
        tied=bool(model.config.tie_word_embeddings),
        rank_one=adapter_parameters(model, 1, "all-linear", ".*visual.*"),
        qk_norm=hasattr(layers[0].self_attn, "q_norm"),
    )


def adapter_parameters(model: Any, rank: int, target: str | Sequence[str], exclude: str | Sequence[str] | None) -> int:
    """The parameters that LoRA of that rank adds, by the rules of peft: rank * (inputs + outputs) of each linear layer.

    Args:
        target: peft's `target_modules`: "all-linear" (all but the output layer), names, or a regular expression.
        exclude: peft's `exclude_modules`: names or a regular expression.

    Raises:
        ValueError: there is no such layer.
    """
    output = model.get_output_embeddings()
    chosen = [
        linear
        for name, linear in _linears(model)
        if (linear is not output if target == "all-linear" else _names(name, target))
        and not (exclude and _names(name, exclude))
    ]
    if not chosen:
        raise ValueError(f"model.target_modules={target} names no linear layer of the model; all-linear takes them all")
    return rank * sum(linear.in_features + linear.out_features for linear in chosen)


def _names(name: str, wanted: str | Sequence[str]) -> bool:
    """Whether peft would take a module for one of `wanted`: a regular expression, or whole names at its end."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in wanted)


def _linears(model: Module) -> Iterable[tuple[str, Any]]:
    from torch.nn import Linear

    return ((name, module) for name, module in model.named_modules() if isinstance(module, Linear))


def _count(module: Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
