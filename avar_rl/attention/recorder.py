"""Records span masses in the forward pass of a real model, under whatever attention implementation it runs.

The language model's layers find their attention function by name in transformers' `ALL_ATTENTION_FUNCTIONS`. A
recording wrapper of that function looks at query and key (after rotary embedding) and then calls the stock function
with unchanged arguments, so the logits are bit-identical with recording on and off. The wrapper stays in place,
process-wide; while nothing records it costs one dictionary look-up. Attention paths that do not go through
transformers' registry call `observe` on their own (`avar_rl.verl_plugin.compat.patched_attention`).

Gradients: in grad mode masses keep their graph, so a loss can be made of them. Under transformers' non-reentrant
activation checkpointing the recomputation replays the recording (module `replay`); under checkpointing set up
elsewhere it does not record again, and span mass keeps query and key. Reentrant checkpointing runs the forward without
a graph and is refused. The backward pass may run inside or after the recording, and several recorded forward passes may
come before one backward.

Not supported, each a ValueError: key caches (decoding), sliding windows shorter than the sequence. Under Ulysses
sequence parallelism every rank records its share of the heads; whoever drives the model gathers them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from avar_rl.attention import varlen
from avar_rl.attention.kernel_lse import CatchLogSumExp
from avar_rl.attention.replay import replay_under_checkpointing, replayed
from avar_rl.attention.span_mass import Problem, solve

# Shapes: L layers, B batch, S spans, H query heads, H_kv key heads, Q queries, T tokens, D head dim.


@dataclass(frozen=True)
class SpanMassRecord:
    """The span masses that one forward pass recorded.

    `masses[layer]` is float32 (B, S, H, Q), as `span_mass` returns it, for every layer of `layers`.
    """

    layers: tuple[int, ...]
    masses: dict[int, Tensor] = field(default_factory=dict)

    def stack(self) -> Tensor:
        """All masses, (L, B, S, H, Q), layers in ascending order. ValueError where a wanted layer recorded nothing."""
        self.require_complete()
        return torch.stack([self.masses[layer] for layer in self.layers])

    def require_complete(self) -> None:
        """Raises ValueError where a wanted layer recorded nothing."""
        missing = [layer for layer in self.layers if layer not in self.masses]
        if missing:
            raise ValueError(
                f"recording yielded nothing for layers {missing} of {list(self.layers)}: the forward pass did not run, "
                "or its attention function is not one that records (supported: transformers' attention registry, and "
                "verl's patched Qwen2.5-VL attention after avar_rl.verl_plugin.compat.patched_attention.install)"
            )


class SpanMassRecorder:
    """Records one forward pass at a time: `start(...)`, run the model, `finish()`; or `record_span_mass`."""

    def __init__(self, model: nn.Module) -> None:
        """For `model`, a transformers model. ValueError: its self-attention layers cannot be found."""
        self._modules = language_attention_modules(model)
        self._checkpointable = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
        self._now: _Recording | None = None

    @property
    def recording(self) -> bool:
        """Whether a recording is on."""
        return self._now is not None

    def start(
        self,
        spans: Tensor,
        *,
        query_positions: Tensor | None = None,
        layers: Sequence[int] | None = None,
        cu_seqlens: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> SpanMassRecord:
        """Starts to record the next forward pass; the record that is returned fills while the model runs.

        Args:
            spans: bool (B, S, T), membership of each token in each span.
            query_positions: int64 (B, Q), the positions of the queries wanted, padded with -1; None for all T.
            layers: indices of decoder layers; None for all of the language model.
            cu_seqlens: int (N+1), borders of the sequences of a packed batch (then B = 1).
            valid: bool (B, T), False on padding.

        Raises:
            ValueError: a layer does not exist or is being recorded already.
        """
        if self.recording:
            raise ValueError("a recording is already on: call finish() or stop() before the next start()")
        chosen = sorted(self._modules) if layers is None else sorted(set(layers))
        absent = [layer for layer in chosen if layer not in self._modules]
        if absent or not chosen:
            raise ValueError(f"cannot record layers {absent or chosen}: the model has layers {list(self._modules)}")
        layer_of = {self._modules[layer]: layer for layer in chosen}
        busy = [layer for module, layer in layer_of.items() if module in _RECORDING]
        if busy:
            raise ValueError(f"layers {busy} are being recorded by another recorder: stop it first")
        for module in layer_of:
            install_recording(module)
        if torch.is_grad_enabled():
            replay_under_checkpointing(self._checkpointable, _to_replay)
        record = SpanMassRecord(tuple(chosen))
        wanted = _Wanted(spans, query_positions, cu_seqlens, valid)
        self._now = _Recording(record, layer_of, wanted, torch.is_grad_enabled())
        _RECORDING.update(dict.fromkeys(layer_of, self._now))
        return record

    def finish(self) -> SpanMassRecord:
        """Ends the recording and returns it. ValueError where none is on, or a wanted layer recorded nothing."""
        if self._now is None:
            raise ValueError("no recording is on: call start() before the forward pass and finish() once after it")
        record = self._now.record
        self.stop()
        record.require_complete()
        return record

    def stop(self) -> None:
        """Drops the recording, if one is on."""
        if self._now is not None:
            for module in self._now.layer_of:
                del _RECORDING[module]
            self._now = None


@dataclass(frozen=True)
class _Wanted:
    """What is measured in every layer; a replay needs no more."""

    spans: Tensor
    query_positions: Tensor | None
    cu_seqlens: Tensor | None
    valid: Tensor | None

    @functools.cached_property
    def problem(self) -> Problem:
        return Problem.build(self.spans, self.query_positions, self.cu_seqlens, self.valid)

    def masses(self, query: Tensor, key: Tensor, scale: float | None, kernel: CatchLogSumExp | None) -> Tensor:
        lse = None if kernel is None else kernel.per_query(query, self.valid)
        return solve(self.problem, query, key, scale=scale, lse=lse)


@dataclass(frozen=True)
class _Recording:
    record: SpanMassRecord
    layer_of: dict[nn.Module, int]
    wanted: _Wanted
    grad: bool  # grad mode at start()

    def observe(
        self, module: nn.Module, query: Tensor, key: Tensor, scale: float | None, kernel: CatchLogSumExp | None
    ) -> None:
        layer = self.layer_of[module]
        if layer in self.record.masses:
            raise ValueError(f"layer {layer} ran twice in one recording: call start() anew for every forward pass")
        mass = self.wanted.masses(query, key, scale, kernel)
        if self.grad and module.training and not mass.requires_grad and _trains_attention(module):
            raise ValueError(
                f"layer {layer} recorded masses without gradients in training: reentrant activation checkpointing runs "
                'the forward pass without a graph. Use gradient_checkpointing_kwargs={"use_reentrant": False}; to '
                "record without gradients, start the recording under torch.no_grad()."
            )
        self.record.masses[layer] = mass


# Attention modules now recording → their recording. Empty unless one is on.
_RECORDING: dict[nn.Module, _Recording] = {}


@contextmanager
def record_span_mass(
    model: nn.Module,
    spans: Tensor,
    *,
    query_positions: Tensor | None = None,
    layers: Sequence[int] | None = None,
    cu_seqlens: Tensor | None = None,
    valid: Tensor | None = None,
) -> Iterator[SpanMassRecord]:
    """Records span masses in the one forward pass of `model`, a transformers model, that is run inside the block.

        with record_span_mass(model, role_spans(roles, [Role.IMAGE, Role.SYSTEM]), query_positions=positions) as record:
            logits = model(**inputs).logits
        mass_LBSHQ = record.stack()

    Logits are bit-identical with and without it. Under grad mode the masses have a graph.

    Args:
        spans: bool (B, S, T), membership of each token in each span.
        query_positions: int64 (B, Q), the positions of the queries wanted, padded with -1; None for all T.
        layers: indices of decoder layers; None for all of the language model.
        cu_seqlens: int (N+1), borders of the sequences of a packed batch (then B = 1).
        valid: bool (B, T), False on padding; needed where the batch is padded on the left.

    Raises:
        ValueError: the model's layers cannot be found, a layer does not exist, or a wanted layer recorded nothing.
    """
    recorder = SpanMassRecorder(model)
    try:
        yield recorder.start(spans, query_positions=query_positions, layers=layers, cu_seqlens=cu_seqlens, valid=valid)
        recorder.finish()
    finally:
        recorder.stop()


def _to_replay() -> dict[nn.Module, _Wanted]:
    """What is being measured, without the records: masses hold the graph, and the graph is to hold these."""
    return {module: recording.wanted for module, recording in _RECORDING.items()}


def language_attention_modules(model: nn.Module) -> dict[int, nn.Module]:
    """Layer index → self-attention module of the language model, never the vision tower. ValueError: none found."""
    get_decoder: Any = getattr(model, "get_decoder", None)
    decoder: Any = None if get_decoder is None else get_decoder()
    modules = {
        module.layer_idx: module
        for module in (decoder.modules() if decoder is not None else ())
        if hasattr(module, "layer_idx") and hasattr(module, "q_proj") and hasattr(module, "k_proj")
    }
    if not modules:
        raise ValueError(
            f"no self-attention layers found in the language model of {type(model).__name__}: "
            "span masses need a transformers decoder whose attention has q_proj, k_proj and layer_idx"
        )
    return dict(sorted(modules.items()))


def is_recording(module: nn.Module) -> bool:
    """Whether this run of an attention module is to be observed: in a recording, or in the replay of one."""
    return replayed(module) is not None or (module in _RECORDING and not _in_backward())


def observe(
    module: nn.Module, query: Tensor, key: Tensor, scale: float | None = None, kernel: CatchLogSumExp | None = None
) -> None:
    """What an attention function calls when it runs: records this layer where a recording or a replay of one is on.

    Args:
        module: the attention module that runs.
        query: (B, H, T, D), after rotary embedding.
        key: (B, H_kv, T, D), after rotary embedding.
        scale: factor of the scores; None for D**-0.5.
        kernel: the context that was around the attention call; None where there was none.

    Raises:
        ValueError: the layer ran twice in one recording, or without a graph where gradients are wanted.
    """
    replay = replayed(module)
    if replay is not None:
        replay.masses(query, key, scale, None)
    elif is_recording(module):
        _RECORDING[module].observe(module, query, key, scale, kernel)


def wrap_attention_function(stock: Callable, name: str) -> Callable:
    """A function of transformers' attention signature that calls `stock`, which is registered as `name`, with unchanged
    arguments, and records."""

    @functools.wraps(stock)
    def recording(module, query, key, value, attention_mask, *args, **kwargs):
        if not is_recording(module):
            return stock(module, query, key, value, attention_mask, *args, **kwargs)
        window = kwargs.get("sliding_window")
        if window is not None and window < key.shape[2]:
            raise ValueError(f"cannot record {key.shape[2]} tokens under a sliding window of {window}")
        kernel = CatchLogSumExp()
        # Every operation under it passes through Python, and a fast GPU waits for that.
        with varlen.around_the_kernel(kernel) if name == varlen.NAME else kernel:
            output = stock(module, query, key, value, attention_mask, *args, **kwargs)
        observe(module, query, key, kwargs.get("scaling"), kernel)
        return output

    recording_attention: Any = recording
    recording_attention.records_span_mass = True
    return recording_attention


def install_recording(module: nn.Module) -> None:
    """Puts the recording wrapper around the attention function that `module` looks up, once per function."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    config: Any = module.config
    name = config._attn_implementation
    stock = ALL_ATTENTION_FUNCTIONS.get(name, _model_eager if name == "eager" else None)
    if stock is None:
        raise ValueError(
            f"attention implementation {name!r} is not in transformers' registry: cannot record span masses"
        )
    if not hasattr(stock, "records_span_mass"):
        ALL_ATTENTION_FUNCTIONS[name] = wrap_attention_function(stock, name)


def _model_eager(module, *args, **kwargs):
    """Eager attention is not in the registry: every modeling file falls back to its own function of this name."""
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)


def _trains_attention(module: nn.Module) -> bool:
    projections: tuple[Any, ...] = module.q_proj, module.k_proj
    return any(parameter.requires_grad for projection in projections for parameter in projection.parameters())


def _in_backward() -> bool:
    """True while autograd runs a backward pass, as torch.utils.checkpoint itself asks."""
    return torch._C._current_graph_task_id() != -1
