"""Part 5: what recording costs at the whole shape of Qwen2.5-VL-7B's language model: benchmarks/gpu.py, with goals."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks import cases, gpu
from benchmarks.gpu_check.results import PartFindings, Setting

TOKENS = (4096, 8192, 16384)
REPEATS = 5


def run(findings: PartFindings, setting: Setting) -> None:
    small, device = setting.miniature, setting.device
    lengths, repeats = ((512,), 1) if small else (TOKENS, REPEATS)
    model, attention = gpu.make_model(gpu.MINIATURE if small else gpu.QWEN_7B, max(lengths), device)
    findings.note("attention", attention)
    eager = True
    for tokens in lengths:
        shape = gpu.ModelShape(tokens, image=tokens // 4)
        case = gpu.make_case(model, attention, shape, device)
        for step in cases.STEPS:
            timings = gpu.measure_step(step, case, repeats, eager)
            eager = eager and "eager" in timings
            _keep(findings, f"{step}, {tokens:,} tokens", timings, counts=not small)
        for what in gpu.OPERATIONS:
            operation = gpu.measure_operation(what, shape, model.config, device, repeats)
            findings.note(f"span mass of a layer, {tokens:,} tokens: {what}", dataclasses.asdict(operation))


def _keep(findings: PartFindings, name: str, timings: dict[str, Any], counts: bool) -> None:
    found = timings["recording"]
    findings.note(name, {variant: dataclasses.asdict(timing) for variant, timing in timings.items()})
    findings.at_most(f"{name}: time with masses over without", 1.03, found.ratio, counts)
    findings.at_most(f"{name}: peak memory with masses over without", 1.01, found.memory, counts)
