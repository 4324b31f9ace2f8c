"""Part 2: span mass as Triton computes it, masses and gradients, against float64.

bfloat16, heads of 128, seven query heads to a key head, a packed batch; with the log-sum-exp known and unknown.
"""

from __future__ import annotations

import os
from time import perf_counter

import torch

from avar_rl.attention.span_mass.select import VARIABLE
from benchmarks.accuracy import errors, log_sum_exp, ours
from benchmarks.gpu_check.results import PartFindings, Setting

# Shapes: H query heads, G key heads, T tokens, D head dim, S spans, Q queries.


def run(findings: PartFindings, setting: Setting) -> None:
    os.environ[VARIABLE] = "triton"  # an error where it cannot run
    H, G, D, lengths, queries = (7, 1, 32, (1, 20, 32), 40) if setting.miniature else (28, 4, 128, (1, 639, 1920), 768)
    query, key, spans, weight, where = _case(H, G, D, lengths, queries, setting.device)
    for known in (False, True):
        lse = log_sum_exp(query.float(), key.float(), cu_seqlens=where["cu_seqlens"]) if known else None
        name = f"log-sum-exp {'known' if known else 'unknown'}"
        begun = perf_counter()
        result = ours(query, key, spans, weight, lse=lse, **where)
        if not setting.miniature:
            torch.cuda.synchronize()
        findings.note(f"{name}: seconds of the first call, with compiling", round(perf_counter() - begun, 2))
        for error in errors(result, query, key, spans, weight, **where):
            findings.at_most(f"{error.what}, {name}: error over twice plain bf16's", 1.0, error.found / error.allowed)
            findings.note(f"{error.what}, {name}", {"error": error.found, "allowed": error.allowed})
        again = ours(query, key, spans, weight, lse=lse, **where)
        same = all(torch.equal(one, other) for one, other in zip(result, again, strict=True))
        findings.holds(f"{name}: the same bits twice", same)


def _case(H: int, G: int, D: int, lengths: tuple[int, ...], queries: int, device: str):
    """query, key, spans, weight, and where: `queries` positions spread over packed sequences of `lengths`."""
    torch.manual_seed(0)
    T = sum(lengths)
    query, key = torch.randn(1, H, T, D, device=device).bfloat16(), torch.randn(1, G, T, D, device=device).bfloat16()
    spans = torch.rand(1, 2, T, device=device) > 0.6
    spans[:, :, T // 2 : 3 * T // 4] = False  # some blocks of keys hold no span
    positions = torch.linspace(0, T - 1, queries, device=device).long()[None].clone()
    positions[:, -1] = -1
    borders = torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)
    weight = torch.randn(1, 2, H, queries, device=device)
    return query, key, spans, weight, dict(query_positions=positions, cu_seqlens=borders)
