"""A CPU kernel for torch's operation of packed attention, forward and backward, which torch has for CUDA only.

Every sequence goes through torch's own flash kernel for CPUs, in float64, float32 or half precision. Importing this
module registers it.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn.attention import varlen

# Shapes: N sequences, X tokens of the packed batch, T tokens of one sequence, H heads, D head dim.

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    scale: float | None = None,
    window_size: list[int] | None = None,
    *extra,
) -> tuple[Tensor, Tensor, Tensor]:
    """(X, H, D) → output (X, H, D), log-sum-exp (H, X), and an unused state. Arguments as torch declares them."""
    if any(extra) or (cu_seq_k is not None and not torch.equal(cu_seq_q, cu_seq_k)):
        raise ValueError("packed attention on a CPU is self-attention with equal head counts, without a key cache")
    output = torch.empty_like(query)
    accurate = torch.promote_types(query.dtype, torch.float32)  # what the backward kernel takes, too
    lse = query.new_empty(query.shape[1], query.shape[0], dtype=accurate)
    for part, mask in _sequences(cu_seq_q, is_causal, window_size, query):
        rows = (_heads_first(x[part]) for x in (query, key, value))
        result = _FORWARD(*rows, 0.0, is_causal, attn_mask=mask, scale=scale)
        output[part], lse[:, part] = result[0][0].transpose(0, 1), result[1][0]
    return output, lse, torch.zeros(2, dtype=torch.uint64)


def _backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool,
    rng_state: Tensor,
    scale: float | None = None,
    window_size: list[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value, each (X, H, D). Arguments as torch declares them."""
    grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    for part, mask in _sequences(cu_seq_q, is_causal, window_size, query):
        rows = (_heads_first(x[part]) for x in (grad_out, query, key, value, out))
        result = _BACKWARD(*rows, lse[None, :, part].contiguous(), 0.0, is_causal, attn_mask=mask, scale=scale)
        for grad, row in zip(grads, result, strict=True):
            grad[part] = row[0].transpose(0, 1)
    return grads


def _sequences(borders: Tensor, is_causal: bool, window: list[int] | None, like: Tensor):
    """Where each sequence lies, and the mask of a window, which excludes `is_causal`."""
    left, right = window or (-1, -1)
    for start, end in itertools.pairwise(borders.tolist()):
        if end > start:
            windowed = not is_causal and (left >= 0 or right >= 0)
            yield slice(start, end), _window_mask(end - start, left, right, like) if windowed else None


def _window_mask(length: int, left: int, right: int, like: Tensor) -> Tensor:
    position = torch.arange(length)
    ahead = position - position[:, None]  # of key before query
    hidden = ((ahead < -left) & (left >= 0)) | ((ahead > right) & (right >= 0))
    return torch.zeros(length, length, dtype=like.dtype).masked_fill(hidden, -torch.inf)


def _heads_first(x_THD: Tensor) -> Tensor:
    return x_THD.transpose(0, 1)[None]


varlen._varlen_attn.register_kernel("cpu")(_forward)
varlen._varlen_attn_backward.register_kernel("cpu")(_backward)
