"""Span mass: how much causal attention every query pays to each span of keys. All implementations share one signature.

    mass_X(l, h, q) = Σ_{k ∈ X, k ≤ q} A[l, h, q, k] = exp(LSE_X − LSE_all)

A is the post-softmax attention, LSE a log-sum-exp of scaled scores over the keys of X, or over all visible keys.
"""

from avar_rl.attention.span_mass.problem import Problem
from avar_rl.attention.span_mass.select import VARIABLE, solve, span_mass

__all__ = ["VARIABLE", "Problem", "solve", "span_mass"]
