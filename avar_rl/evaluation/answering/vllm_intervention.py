"""The intervention of `avar_rl.intervention` inside vLLM: out-of-tree model classes whose attention has wider heads.

vLLM writes keys to its cache and lets a backend's kernel read them, so nothing can be done to logits or weights. The
algebra of wider heads (see `avar_rl.intervention`) needs neither: the key's gain is cached with the key, the query says
by its own extra entries whether it is one to act on. So both modes are exact in any backend that supports the
wider head size, on CPU and GPU, under prefix caching, chunked prefill and preemption.

Plug-in points used: `ModelRegistry.register_model` under names of our own (other engines of the process are untouched),
`hf_overrides` to choose them, `additional_config` to carry the settings, `worker_extension_cls` to find the runner,
which knows the requests of a batch.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from vllm import ModelRegistry
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.model_executor.models.qwen2_vl import Qwen2VLForConditionalGeneration
from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration
from vllm.model_executor.models.utils import extract_layer_index
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from avar_rl.attention.roles import Markup, token_roles
from avar_rl.intervention import Intervention

# Shapes: N tokens of a batch (one request after another), T tokens of a prompt, D head dim, W widened head dim.

_SETTINGS = "avar_intervention"  # key of vLLM's additional_config
_PREFIX = "Intervened"
_WIDEST_HEAD = 512


def engine_options(model: str, intervention: Intervention) -> dict[str, Any]:
    """The arguments of `vllm.LLM` that make `model`, a directory or hub name, run with the intervention.

    Call `follow_requests` on the engine before its first request. ValueError: the model's family has no such class.
    """
    from transformers import AutoConfig

    architecture = (AutoConfig.from_pretrained(model).architectures or ["unknown"])[0]
    if architecture not in _CLASSES:
        raise ValueError(f"{model} is a {architecture}; the intervention supports {', '.join(_CLASSES)}")
    os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")  # `_Marks` reads the batches of the V1 runner
    return {
        "hf_overrides": {"architectures": [_PREFIX + architecture]},
        "additional_config": {_SETTINGS: asdict(intervention)},
        "worker_extension_cls": f"{__name__}.WorkerExtension",  # its import registers the classes in every worker
        "enforce_eager": True,  # marks are computed between graphs, from Python
    }


def follow_requests(engine) -> None:
    """Lets the model in every worker of `engine`, a `vllm.LLM`, see which requests a batch holds."""
    engine.collective_rpc("show_requests_to_the_intervention")


class WorkerExtension:
    """Methods that vLLM adds to its workers."""

    model_runner: Any  # the worker's own

    def show_requests_to_the_intervention(self) -> None:
        """Gives the model its runner. RuntimeError: vLLM uses another runner than the one whose batches are read."""
        if not isinstance(self.model_runner, GPUModelRunner):  # on a CPU too
            raise RuntimeError("the intervention reads the batches of vLLM's V1 runner: set VLLM_USE_V2_MODEL_RUNNER=0")
        model: Any = self.model_runner.get_model()
        model.marks.runner = self.model_runner


class _Marks:
    """Which tokens of the batch that now runs the intervention acts on, and their gains."""

    def __init__(self, intervention: Intervention, markup: Markup) -> None:
        self.intervention, self.markup = intervention, markup
        self.runner: Any = None  # vLLM's GPUModelRunner
        self._prompts: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of the requests of the batch

    def update(self, count: int, device: torch.device) -> None:
        """Marks the tokens of the next forward pass, `count` of them, some of which may be padding at the end."""
        acts_N, gains_N = np.zeros(count, dtype=bool), np.zeros(count, dtype=np.float32)
        if get_forward_context().attn_metadata is not None:  # None: vLLM measures its memory
            if self.runner is None:
                raise RuntimeError("call follow_requests(engine) before the first request")
            self._fill(acts_N, gains_N)
        self.acts_N1 = torch.from_numpy(acts_N).to(device)[:, None]
        self.gains_N1 = torch.from_numpy(gains_N).to(device)[:, None]

    def _fill(self, acts_N: np.ndarray, gains_N: np.ndarray) -> None:
        batch, borders = self.runner.input_batch, self.runner.query_start_loc.np
        self._prompts = {request: self._prompt(request, place) for place, request in enumerate(batch.req_ids)}
        for place, (acts_T, gains_T) in enumerate(self._prompts.values()):
            start, stop = borders[place], borders[place + 1]
            first = batch.num_computed_tokens_cpu[place]
            decoded = start + max(0, min(len(acts_T) - first, stop - start))
            acts_N[start:decoded] = acts_T[first : first + decoded - start]
            gains_N[start:decoded] = gains_T[first : first + decoded - start]
            acts_N[decoded:stop] = acts_T.any()  # no query in a prompt without an image, nor after it

    def _prompt(self, request: str, place: int) -> tuple[np.ndarray, np.ndarray]:
        if request in self._prompts:
            return self._prompts[request]
        batch = self.runner.input_batch
        ids = torch.from_numpy(batch.token_ids_cpu[place, : batch.num_prompt_tokens[place]]).long()[None]
        roles = token_roles(ids, self.markup)
        return self.intervention.acts_on(roles)[0].numpy(), self.intervention.gains(roles)[0].numpy()


class _WideAttention(nn.Module):
    """Stands in for one layer's `Attention`: the same scores and values under wider heads, intervened on."""

    def __init__(self, plain: Attention, intervention: Intervention, marks: _Marks, vllm_config: VllmConfig) -> None:
        super().__init__()
        self.head_dim, self.intervention, self.marks = plain.head_size, intervention, marks
        self.scale = plain.impl.scale
        self.width = _supported_width(plain, intervention.width(plain.head_size))
        del vllm_config.compilation_config.static_forward_context[plain.layer_name]  # the name is taken over
        self.wide = Attention(
            plain.num_heads,
            self.width,
            self.scale,
            num_kv_heads=plain.num_kv_heads,
            cache_config=vllm_config.cache_config,
            quant_config=plain.quant_config,
            prefix=plain.layer_name,
        )

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries, keys and values (N, heads · D) → the output (N, heads · D)."""
        N, D = query.shape[0], self.head_dim
        query = self.intervention.widen_query(query.reshape(N, -1, D), self.marks.acts_N1, self.width)
        key = self.intervention.widen_key(key.reshape(N, -1, D), self.marks.gains_N1, self.width, self.scale)
        value = pad(value.reshape(N, -1, D), (0, self.width - D))
        return self.wide(query, key, value).view(N, -1, self.width)[..., :D].reshape(N, -1)


def _supported_width(plain: Attention, least: int) -> int:
    for width in range(least, _WIDEST_HEAD + 1, 8):
        if plain.attn_backend.supports_head_size(width):
            return width
    raise ValueError(
        f"the intervention needs heads of {least}, and vLLM's {plain.attn_backend.get_name()} has none: "
        "use mode=weight, or another attention backend"
    )


class _Intervened:
    """Mixed into a model class of vLLM: puts wide attention into the layers that the settings name."""

    language_model: Any  # the model class's own

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        model: Any = super()
        model.__init__(vllm_config=vllm_config, prefix=prefix)
        settings: Any = vllm_config.additional_config
        intervention = Intervention(**settings[_SETTINGS])
        tokenizer = cached_tokenizer_from_config(vllm_config.model_config)
        self.marks = _Marks(intervention, Markup.from_tokenizer(tokenizer))
        for layer in self.language_model.model.layers:
            attention = layer.self_attn
            index = extract_layer_index(attention.attn.layer_name)
            if intervention.layers is None or index in intervention.layers:
                attention.attn = _WideAttention(attention.attn, intervention, self.marks, vllm_config)

    def forward(self, input_ids, positions, intermediate_tensors=None, inputs_embeds=None, **kwargs):
        self.marks.update(positions.shape[-1], positions.device)
        model: Any = super()
        return model.forward(input_ids, positions, intermediate_tensors, inputs_embeds, **kwargs)


class _Qwen2VL(_Intervened, Qwen2VLForConditionalGeneration):
    pass


class _Qwen2_5_VL(_Intervened, Qwen2_5_VLForConditionalGeneration):
    pass


class _Qwen3VL(_Intervened, Qwen3VLForConditionalGeneration):
    pass


_CLASSES = {
    "Qwen2VLForConditionalGeneration": _Qwen2VL,
    "Qwen2_5_VLForConditionalGeneration": _Qwen2_5_VL,
    "Qwen3VLForConditionalGeneration": _Qwen3VL,
}
for _architecture, _class in _CLASSES.items():
    ModelRegistry.register_model(_PREFIX + _architecture, _class)
