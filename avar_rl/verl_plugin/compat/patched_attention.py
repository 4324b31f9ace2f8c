"""verl 0.9.1's own Qwen2-VL and Qwen2.5-VL attention (`use_remove_padding`, Ulysses): its kernel, and recording on it.

There verl puts `qwen2_vl_attn_forward` in place of the attention's forward, which calls flash attention directly and so
passes by transformers' registry. Flash attention is called through module attributes looked up when used, so wrapping
them is enough. Under Ulysses sequence parallelism they are called after the exchange: with all tokens and this rank's
share of the heads, and that is what is recorded.

flash-attn is what verl expects. Where it is not installed, on a CPU, and for a model whose attention implementation is
`varlen.NAME`, torch's packed attention takes its place.
"""

from __future__ import annotations

import functools
import importlib
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from avar_rl.attention import recorder as attention
from avar_rl.attention import varlen
from avar_rl.attention.kernel_lse import CatchLogSumExp

qwen2_vl: Any = importlib.import_module("verl.models.transformers.qwen2_vl")  # its functions are replaced


@dataclass(frozen=True)
class _Running:
    """The patched forward that is running: verl does not hand these to its attention functions."""

    module: nn.Module
    position_ids: Tensor | None  # (B, T) of text; under Ulysses this rank's share


_RUNNING: list[_Running] = []

# What verl asks flash-attn when it imports it; without flash-attn verl leaves these undefined.
_WITHOUT_FLASH_ATTN = {
    "_flash_supports_window_size": True,
    "_flash_supports_deterministic": False,
    "_flash_use_top_left_mask": False,
    "flash_attn_varlen_func": None,
}


def install() -> None:
    """Wraps verl's patched attention. Call before verl patches the model; further calls do nothing."""
    if hasattr(qwen2_vl.qwen2_vl_attn_forward, "records_span_mass"):
        return
    varlen.register()
    for name, value in _WITHOUT_FLASH_ATTN.items():
        vars(qwen2_vl).setdefault(name, value)
    qwen2_vl.qwen2_vl_attn_forward = _noting(qwen2_vl.qwen2_vl_attn_forward)
    qwen2_vl.fa_peft_integration_check = _half_precision_on_a_gpu(qwen2_vl.fa_peft_integration_check)
    flash_attn_varlen_func = qwen2_vl.flash_attn_varlen_func  # flash-attn's own, or None
    qwen2_vl._flash_attention_forward = recording_padded(qwen2_vl._flash_attention_forward, flash_attn_varlen_func)
    qwen2_vl.flash_attn_varlen_func = recording_varlen(flash_attn_varlen_func)


def _noting(stock):
    @functools.wraps(stock)
    def attn_forward(self, hidden_states, attention_mask=None, position_ids=None, *args, **kwargs):
        text = position_ids[0] if position_ids is not None and position_ids.ndim == 3 else position_ids
        _RUNNING.append(_Running(self, text))
        try:
            return stock(self, hidden_states, attention_mask, position_ids, *args, **kwargs)
        finally:
            _RUNNING.pop()

    marked: Any = attn_forward
    marked.records_span_mass = True
    return marked


def _half_precision_on_a_gpu(stock):
    """verl casts float32 to the bfloat16 that kernels of CUDA need; those of the CPU take float32."""

    @functools.wraps(stock)
    def check(query: Tensor, key: Tensor, value: Tensor, *args, **kwargs):
        return stock(query, key, value, *args, **kwargs) if query.is_cuda else (query, key, value)

    return check


def _from_torch(query: Tensor, flash_attn_varlen_func) -> bool:
    """Whether torch's packed attention takes flash-attn's place in this call."""
    config: Any = _RUNNING[-1].module.config if _RUNNING else None
    chosen = config is not None and config._attn_implementation == varlen.NAME
    return chosen or flash_attn_varlen_func is None or not query.is_cuda


def recording_padded(stock, flash_attn_varlen_func):
    """transformers' function of (B, T, H, D), which verl calls for a batch that it does not take for a packed one."""

    @functools.wraps(stock)
    def flash_attention_forward(query_states: Tensor, key_states: Tensor, value_states: Tensor, mask, *args, **kwargs):
        name = varlen.NAME if _from_torch(query_states, flash_attn_varlen_func) else "flash_attention_2"
        # verl holds sequences of one token for the beginning of what follows. transformers, given positions, does not;
        # where it has made a mask of them, as for SDPA, this kernel needs none.
        positions = _RUNNING[-1].position_ids if _RUNNING else None
        if positions is not None and positions.shape[-1] == query_states.shape[1]:
            kwargs["position_ids"] = positions
            mask = None if mask is not None and mask.ndim == 4 and len(mask) == 1 else mask
        states = (query_states, key_states, value_states)
        run = functools.partial(stock, *states, mask, *args, attn_implementation=name, **kwargs)
        return _call(run, query_states, key_states, window=kwargs.get("sliding_window"))

    return flash_attention_forward


def recording_varlen(stock):
    """flash-attn's function of (nnz, H, D), which verl calls with keyword arguments; None where it is not installed."""

    @functools.wraps(varlen.flash_attn_varlen_func)
    def flash_attn_varlen_func(*, q: Tensor, k: Tensor, **kwargs):
        kernel = varlen.flash_attn_varlen_func if _from_torch(q, stock) else stock
        run = functools.partial(kernel, q=q, k=k, **kwargs)
        return _call(run, q[None], k[None], window=kwargs.get("window_size"))

    return flash_attn_varlen_func


def _call(run, query_BTHD: Tensor, key_BTHD: Tensor, window: int | tuple[int, int] | None):
    """Runs attention and records it; verl has repeated the keys for grouped queries."""
    module = _RUNNING[-1].module if _RUNNING else None
    if module is None or not attention.is_recording(module):
        return run()
    if window is not None and max(window if isinstance(window, tuple) else (window,)) < key_BTHD.shape[1]:
        raise ValueError(f"cannot record {key_BTHD.shape[1]} tokens under a sliding window of {window}")
    with CatchLogSumExp() as kernel:
        output = run()
    # One key head of each group. Under Ulysses a rank's heads may begin and end inside a group.
    groups: Any = module.num_key_value_groups
    once = math.gcd(groups, key_BTHD.shape[2])
    attention.observe(module, query_BTHD.transpose(1, 2), key_BTHD[:, :, ::once].transpose(1, 2), kernel=kernel)
    return output
