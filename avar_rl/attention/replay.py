"""Recording under activation checkpointing: what the backward pass of span mass needs is recomputed, not kept.

Non-reentrant checkpointing drops the tensors saved in the forward pass and runs it again in the backward pass, where
the same operations must save the same tensors in the same order. So the recomputation of a layer must know whether its
forward pass was recorded, and how. torch has `context_fn` for that, an argument of the checkpointing function that
transformers gives each layer: the context of the forward pass makes span mass save query and key as any operation does,
that of the recomputation names the recordings that were on, which attention functions then replay (no mass is computed
again).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from avar_rl.attention.span_mass.autograd import keeping

# Attention module → what its forward pass recorded; in the recomputation of a layer only.
_REPLAYED: ContextVar[dict[nn.Module, Any] | None] = ContextVar("avar_replayed", default=None)


def replayed(module: nn.Module) -> Any | None:
    """What the forward pass that is being recomputed recorded of this attention module; None otherwise."""
    return (_REPLAYED.get() or {}).get(module)


def replay_under_checkpointing(modules: Iterable[nn.Module], now: Callable[[], dict[nn.Module, Any]]) -> None:
    """Sets the contexts of those of `modules` that transformers checkpoints without reentrance. `now` gives the
    recordings that are on: attention module → recording."""
    for module in modules:
        function = getattr(module, "_gradient_checkpointing_func", None)
        if not isinstance(function, functools.partial) or function.func is not checkpoint:
            continue
        if function.keywords.get("use_reentrant") is False and "context_fn" not in function.keywords:
            layer: Any = module
            layer._gradient_checkpointing_func = functools.partial(function, context_fn=lambda: _contexts(now()))


def _contexts(recordings: dict[nn.Module, Any]):
    return keeping("save"), _replaying(recordings)


@contextmanager
def _replaying(recordings: dict[nn.Module, Any]):
    token = _REPLAYED.set(recordings)
    try:
        with keeping("replay"):
            yield
    finally:
        _REPLAYED.reset(token)
