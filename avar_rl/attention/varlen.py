"""Packed (padding-free) attention from torch itself, for machines without flash-attn.

`register()` gives transformers an attention implementation of the name `NAME`. It is transformers' own flash attention
(borders from `cu_seq_lens` or position ids, padding taken out before and put back after), and so serves the language
model and the vision tower; its kernel is torch.nn.attention.varlen.varlen_attn. On CUDA that runs torch's flash kernel,
in half precision. For a CPU, where torch has none, one is registered under the same operation
(`torch_attn::_varlen_attn`, module `varlen_cpu`), so that the very same calls run, and are recorded, on both.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import varlen

from avar_rl.attention import varlen_cpu  # noqa: F401 (registers the kernel)

# Shapes: B batch, N sequences, X tokens of a packed batch, T tokens, H query heads, H_kv key heads, D head dim.

# "flash" in a name is how transformers knows an implementation that takes packed batches.
NAME = "torch_flash_varlen"


_AROUND: ContextVar[AbstractContextManager | None] = ContextVar("avar_varlen_around", default=None)


@contextmanager
def around_the_kernel(context: AbstractContextManager) -> Iterator[None]:
    """Inside the block, `context` is entered for the kernel alone, not for what transformers does around it."""
    token = _AROUND.set(context)
    try:
        yield
    finally:
        _AROUND.reset(token)


def flash_attn_varlen_func(
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
    window_size: tuple[int, int] = (-1, -1),
    deterministic: bool = False,
) -> Tensor:
    """As flash-attn's function of this name, of which these are the arguments that are served.

    Args:
        q: (X, H, D).
        k, v: (X, H_kv, D), where H_kv divides H.
        cu_seqlens_q, cu_seqlens_k: (N+1,), the borders of the sequences.
        max_seqlen_q, max_seqlen_k: length of the longest sequence; a tensor of one number will do.
        dropout_p: must be 0.
        softmax_scale: factor of the scores; None for D**-0.5.
        causal: no query sees a key after it.
        window_size: how far to the left and right a query sees; -1 for all.
        deterministic: must be False; torch has a switch of its own for all its operations.

    Returns: (X, H, D).

    Raises:
        ValueError: dropout or a deterministic backward pass is wanted.
    """
    if dropout_p:
        raise ValueError(
            f"attention_dropout={dropout_p}: torch's packed attention has no dropout; set it to 0 in the model's config"
        )
    if deterministic:
        raise ValueError(
            "FLASH_ATTENTION_DETERMINISTIC=1 is for flash-attn; torch's packed attention is deterministic under "
            "torch.use_deterministic_algorithms(True)"
        )
    groups = q.shape[1] // k.shape[1]
    if groups > 1:  # torch 2.11 takes equal head counts only
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    borders_q, borders_k = cu_seqlens_q.to(torch.int32), cu_seqlens_k.to(torch.int32)
    left, right = window_size
    window = (left, 0 if causal else right)
    longest = int(max_seqlen_q), int(max_seqlen_k)
    with _AROUND.get() or nullcontext():
        output: Any = varlen.varlen_attn(
            q, k, v, borders_q, borders_k, *longest, scale=softmax_scale, window_size=window
        )
    return output


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    deterministic: bool = False,
) -> Tensor:
    """As flash-attn's function of this name: (B, T, H, D) → (B, T, H, D), every row a sequence."""
    B, T = q.shape[:2]
    if k.shape[1] != T:
        raise ValueError(f"packed attention of {T} queries on {k.shape[1]} keys: decoding needs another implementation")
    borders = torch.arange(0, (B + 1) * T, T, dtype=torch.int32, device=q.device)
    flat_q, flat_k, flat_v = (x.reshape(B * T, *x.shape[2:]) for x in (q, k, v))
    output = flash_attn_varlen_func(
        flat_q, flat_k, flat_v, borders, borders, T, T, dropout_p, softmax_scale, causal, window_size, deterministic
    )
    return output.view(q.shape)


@functools.cache
def register() -> None:
    """Makes `attn_implementation=NAME` known to transformers."""
    from transformers import modeling_flash_attention_utils as flash
    from transformers.integrations.flash_attention import flash_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    # transformers' own pieces, under our name: they call whatever `_lazy_imports` gives for it.
    ALL_ATTENTION_FUNCTIONS.register(NAME, flash_attention_forward)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, flash_attention_mask)
    stock = flash._lazy_imports

    @functools.wraps(stock)
    def lazy_imports(implementation, *args, **kwargs):
        if implementation == NAME:
            return flash_attn_func, flash_attn_varlen_func, None, flash._pad_input, flash._unpad_input
        return stock(implementation, *args, **kwargs)

    flash._lazy_imports = lazy_imports
