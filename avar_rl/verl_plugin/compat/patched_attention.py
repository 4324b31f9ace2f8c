"""Records span masses on verl 0.9.1's own Qwen2-VL and Qwen2.5-VL attention (`use_remove_padding`, Ulysses).

There verl puts `qwen2_vl_attn_forward` in place of the attention's forward, which calls flash attention directly and so
passes by transformers' registry. Flash attention is called through module attributes looked up when used, so wrapping
them is enough. Under Ulysses sequence parallelism they are called after the exchange: with all tokens and this rank's
share of the heads, and that is what is recorded.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any

from torch import Tensor, nn

from avar_rl.attention import recorder as attention
from avar_rl.attention.kernel_lse import CatchLogSumExp

qwen2_vl: Any = importlib.import_module("verl.models.transformers.qwen2_vl")  # its functions are replaced

# The attention module whose patched forward is running: verl does not hand it to its attention function.
_RUNNING: list[nn.Module] = []


def install() -> None:
    """Wraps verl's patched attention for recording. Call before verl patches the model; further calls do nothing."""
    if hasattr(qwen2_vl.qwen2_vl_attn_forward, "records_span_mass"):
        return
    qwen2_vl.qwen2_vl_attn_forward = _noting_module(qwen2_vl.qwen2_vl_attn_forward)
    qwen2_vl._flash_attention_forward = recording_padded(qwen2_vl._flash_attention_forward)
    if hasattr(qwen2_vl, "flash_attn_varlen_func"):  # where flash-attn is installed, or `cpu_attention` stands in
        qwen2_vl.flash_attn_varlen_func = recording_varlen(qwen2_vl.flash_attn_varlen_func)


def _noting_module(stock):
    @functools.wraps(stock)
    def attn_forward(self, *args, **kwargs):
        _RUNNING.append(self)
        try:
            return stock(self, *args, **kwargs)
        finally:
            _RUNNING.pop()

    marked: Any = attn_forward
    marked.records_span_mass = True
    return marked


def recording_padded(stock):
    """transformers' function of (B, T, H, D), which verl calls for one unpacked sequence."""

    @functools.wraps(stock)
    def flash_attention_forward(query_states: Tensor, key_states: Tensor, *args, **kwargs):
        run = functools.partial(stock, query_states, key_states, *args, **kwargs)
        return _call(run, query_states, key_states, window=kwargs.get("sliding_window"))

    return flash_attention_forward


def recording_varlen(stock):
    """flash-attn's function of (nnz, H, D), which verl calls with keyword arguments."""

    @functools.wraps(stock)
    def flash_attn_varlen_func(*, q: Tensor, k: Tensor, **kwargs):
        run = functools.partial(stock, q=q, k=k, **kwargs)
        return _call(run, q[None], k[None], window=kwargs.get("window_size"))

    return flash_attn_varlen_func


def _call(run, query_BTHD: Tensor, key_BTHD: Tensor, window: int | tuple[int, int] | None):
    """Runs attention and records it; verl has repeated the keys for grouped queries."""
    module = _RUNNING[-1] if _RUNNING else None
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
