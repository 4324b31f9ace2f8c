"""Packed (padding-free) attention from torch operators, so that verl's `use_remove_padding` path runs on a CPU.

flash-attn is CUDA only. verl 0.9.1 looks it up as attributes of verl.models.transformers.qwen2_vl, where `install` puts
these functions of the same signatures: every sequence goes through torch's scaled_dot_product_attention on its own.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

# Shapes: B batch, T tokens, H heads, D head dim, nnz tokens of a packed batch.


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] | None = None,
) -> Tensor:
    """As flash_attn.flash_attn_varlen_func for self-attention: (nnz, H, D) → (nnz, H, D), each sequence on its own."""
    _refuse_window(window_size)
    lengths = cu_seqlens_q.diff().tolist()
    parts = [
        scaled_dot_product_attention(
            *(x.transpose(0, 1)[None] for x in qkv), dropout_p=dropout_p, scale=softmax_scale, is_causal=causal
        )[0].transpose(0, 1)
        for qkv in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True)
    ]
    return torch.cat(parts)


def padded_attention(
    query_states: Tensor,
    key_states: Tensor,
    value_states: Tensor,
    attention_mask: Tensor | None,
    query_length: int,
    is_causal: bool,
    dropout: float = 0.0,
    softmax_scale: float | None = None,
    sliding_window: int | None = None,
    **_,
) -> Tensor:
    """As transformers' _flash_attention_forward without a mask: (B, T, H, D) → (B, T, H, D)."""
    if sliding_window is not None and sliding_window < query_states.shape[1]:
        _refuse_window(sliding_window)
    if attention_mask is not None:
        raise ValueError("packed attention on the CPU takes no attention mask: batches with one are not packed")
    heads_first = (x.transpose(1, 2) for x in (query_states, key_states, value_states))
    output = scaled_dot_product_attention(*heads_first, dropout_p=dropout, scale=softmax_scale, is_causal=is_causal)
    return output.transpose(1, 2)


def _refuse_window(window) -> None:
    if window is not None:
        raise ValueError(
            f"packed attention on the CPU has no sliding window ({window} in the model's configuration): set "
            "use_remove_padding=false"
        )


def install() -> None:
    """Stands in for flash-attn in verl's Qwen2-VL and Qwen2.5-VL attention."""
    qwen2_vl: Any = importlib.import_module("verl.models.transformers.qwen2_vl")
    qwen2_vl.flash_attn_varlen_func = varlen_attention
    qwen2_vl._flash_attention_forward = padded_attention
    # What verl asks flash-attn when it imports it; and no cast to the bfloat16 that flash-attn needs.
    qwen2_vl._flash_supports_window_size = True  # so that a window is passed, and refused
    qwen2_vl._flash_supports_deterministic = False
    qwen2_vl._flash_use_top_left_mask = False
    qwen2_vl.fa_peft_integration_check = lambda query, key, value, **_: (query, key, value)
