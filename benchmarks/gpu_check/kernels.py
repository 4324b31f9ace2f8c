"""Part 1: which attention kernels run here, and whether the log-sum-exp that we take from each is the right one.

Each kernel runs with and without gradients. Its operation, and the shape of what it returns second, are noted; the
log-sum-exp caught by `CatchLogSumExp` is compared with float64's, in the natural logarithm and in that of base 2.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import platform
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from avar_rl.attention.kernel_lse import CatchLogSumExp
from avar_rl.attention.varlen import flash_attn_varlen_func
from benchmarks.accuracy import log_sum_exp
from benchmarks.gpu_check.results import PartFindings, Setting

# Shapes: B batch, H heads, T tokens, D head dim.

PACKAGES = ("torch", "triton", "transformers", "verl", "tensordict", "peft", "flash-attn", "vllm")
BACKENDS = {
    "SDPA by default": None,
    "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
    "SDPA flash": SDPBackend.FLASH_ATTENTION,
    "SDPA memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
}
# Without gradients these two leave the log-sum-exp out; what the others return must be caught.
MAY_LEAVE_OUT = ("SDPA cuDNN", "SDPA memory-efficient", "SDPA by default", "SDPA with a mask")
LIMIT = 1e-3  # scores in float32 are right to about 1e-5; another base of the logarithm is off by 30 %


@dataclass(frozen=True)
class Inputs:
    """query, key, value: (1, H, T, D). borders: of the sequences that attention is packed from."""

    query: Tensor
    key: Tensor
    value: Tensor
    borders: Tensor


def run(findings: PartFindings, setting: Setting) -> None:
    findings.note("versions", versions(setting))
    torch.manual_seed(0)
    H, T, D = (4, 70, 32) if setting.miniature else (28, 1000, 128)
    query, key, value = (torch.randn(1, H, T, D, device=setting.device).bfloat16() for _ in range(3))
    borders = torch.tensor([0, 1, T // 3, T], dtype=torch.int32, device=setting.device)
    inputs = Inputs(query, key, value, borders)
    exact = query.double(), key.double()
    whole, packed = log_sum_exp(*exact), log_sum_exp(*exact, cu_seqlens=borders)
    for gradients in (True, False):
        for name, kernel in _kernels(setting).items():
            expected = packed if name == "varlen" else whole
            _check(findings, name, kernel, inputs, expected, gradients)


def versions(setting: Setting) -> dict[str, str]:
    """Of packages, Python, the driver and the card, as text."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    if setting.miniature:
        return found | {"card": "none"}
    properties = torch.cuda.get_device_properties(0)
    found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version()), "card": properties.name}
    found |= {"multiprocessors": str(properties.multi_processor_count), "bytes": str(properties.total_memory)}
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    asked = subprocess.run(query, capture_output=True, text=True, timeout=20)
    return found | {"driver": asked.stdout.strip() or asked.stderr.strip()}


def _kernels(setting: Setting) -> dict[str, Callable[[Inputs], Tensor]]:
    backends = {"SDPA by default": None} if setting.miniature else BACKENDS
    kernels: dict[str, Callable] = {name: functools.partial(_sdpa, backend=b) for name, b in backends.items()}
    kernels |= {"SDPA with a mask": _masked, "varlen": _varlen}
    if not setting.miniature and importlib.util.find_spec("flash_attn"):
        kernels["flash-attn"] = _flash_attn
    return kernels


def _sdpa(inputs: Inputs, backend: SDPBackend | None) -> Tensor:
    with nullcontext() if backend is None else sdpa_kernel(backend):
        return scaled_dot_product_attention(inputs.query, inputs.key, inputs.value, is_causal=True)


def _masked(inputs: Inputs) -> Tensor:
    T = inputs.query.shape[2]
    seen = torch.ones(1, 1, T, T, dtype=torch.bool, device=inputs.query.device).tril()
    return scaled_dot_product_attention(inputs.query, inputs.key, inputs.value, attn_mask=seen)


def _varlen(inputs: Inputs) -> Tensor:
    longest = int(inputs.borders.diff().max())
    query, key, value = (x[0].transpose(0, 1) for x in (inputs.query, inputs.key, inputs.value))
    return flash_attn_varlen_func(query, key, value, inputs.borders, inputs.borders, longest, longest, causal=True)


def _flash_attn(inputs: Inputs) -> Tensor:
    flash_attn: Any = importlib.import_module("flash_attn")
    rows = (x.transpose(1, 2) for x in (inputs.query, inputs.key, inputs.value))
    return flash_attn.flash_attn_func(*rows, causal=True)


class _Operations(TorchDispatchMode):
    """Notes every attention operation, and the shape and type of its second result."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if "attention" in func.name() or "attn" in func.name():
            second = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            shape = f" -> {tuple(second.shape)} {second.dtype}" if isinstance(second, Tensor) else ""
            self.seen.append(func.name() + shape)
        return output


def _check(findings: PartFindings, name: str, kernel, inputs: Inputs, expected: Tensor, gradients: bool) -> None:
    how = f"{name}, {'with' if gradients else 'without'} gradients"
    query, key, value = (x.detach().requires_grad_(gradients) for x in (inputs.query, inputs.key, inputs.value))
    mine = Inputs(query, key, value, inputs.borders)
    try:
        with torch.set_grad_enabled(gradients), CatchLogSumExp() as caught, _Operations() as operations:
            kernel(mine)
    except RuntimeError as error:  # torch says so where a backend cannot serve this call
        findings.note(how, {"unavailable": str(error).splitlines()[0]})
        findings.at_most(f"{how}: log-sum-exp against float64", LIMIT, None)
        return
    lse = caught.per_query(mine.query)
    fact: dict[str, Any] = {"operations": operations.seen, "caught": lse is not None}
    if lse is not None:
        fact["error, natural logarithm"] = _error(lse.double(), expected)
        fact["error, base 2"] = _error(lse.double() * math.log(2), expected)
    findings.note(how, fact)
    findings.at_most(f"{how}: log-sum-exp against float64", LIMIT, fact.get("error, natural logarithm"))
    if gradients or name not in MAY_LEAVE_OUT:
        findings.holds(f"{how}: log-sum-exp is caught", lse is not None)


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max())
