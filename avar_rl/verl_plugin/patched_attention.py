"""Records span masses on verl 0.9.1's own Qwen2.5-VL attention, used with `use_remove_padding` or sequence parallelism.

There verl puts `qwen2_vl_attn_forward` in place of the attention's forward, which calls flash attention directly and so
passes by transformers' registry. Both are module attributes looked up when used, so wrapping them is enough.
"""

from __future__ import annotations

import functools

from torch import Tensor, nn
from verl.models.transformers import qwen2_vl
from verl.utils.ulysses import get_ulysses_sequence_parallel_world_size

from avar_rl import attention

# The attention module whose patched forward is running: verl does not hand it to its attention function.
_RUNNING: list[nn.Module] = []


def install() -> None:
    """Wraps verl's patched attention for recording. Call before verl patches the model; further calls do nothing."""
    if hasattr(qwen2_vl.qwen2_vl_attn_forward, "records_span_mass"):
        return
    qwen2_vl.qwen2_vl_attn_forward = _noting_module(qwen2_vl.qwen2_vl_attn_forward)
    qwen2_vl._custom_flash_attention_forward = _recording(qwen2_vl._custom_flash_attention_forward)


def _noting_module(stock):
    @functools.wraps(stock)
    def attn_forward(self, *args, **kwargs):
        _RUNNING.append(self)
        try:
            return stock(self, *args, **kwargs)
        finally:
            _RUNNING.pop()

    attn_forward.records_span_mass = True
    return attn_forward


def _recording(stock):
    """verl's function takes (B, T, H, D), with keys already repeated for grouped queries."""

    @functools.wraps(stock)
    def flash_attention_forward(query_states: Tensor, key_states: Tensor, *args, **kwargs):
        module = _RUNNING[-1]
        if attention.is_recording(module):
            if get_ulysses_sequence_parallel_world_size() > 1:
                raise ValueError(
                    "span masses are not recorded under Ulysses sequence parallelism, which splits heads over ranks: "
                    "set ulysses_sequence_parallel_size=1"
                )
            # One key head of each group, in memory of its own: repeated keys need not be kept for the backward pass.
            key_BGTD = key_states[:, :, :: module.num_key_value_groups].transpose(1, 2).contiguous()
            attention.observe(module, query_states.transpose(1, 2), key_BGTD)
        return stock(query_states, key_states, *args, **kwargs)

    return flash_attention_forward
