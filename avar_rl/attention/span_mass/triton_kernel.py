"""Triton kernels of span mass: forward, and backward in the wanted queries and in the key.

    P_qk = exp2(scale · log2(e) · x_q · y_k − log2(e) · LSE_q) for keys k that query q sees, else 0
    M_qs = Σ_k P_qk · 1[k ∈ s]        dS_qk = P_qk · Σ_s g_qs · (1[k ∈ s] − M_qs)
    dx_q = scale · Σ_k dS_qk · y_k    dy_k = scale · Σ_q dS_qk · x_q

x are the query vectors, y the key vectors, g the gradient of the masses M. Scores, P and sums are float32; dS is
rounded to the input type for the products of the backward pass, as in flash attention. Each output tile is written by
one program in a fixed order, so results are deterministic. Every key carries one int32: bit s is membership in span s,
bit VALID that it is no padding. Queries of position -1 see nothing.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
# Triton declares what only its compiler understands, such as static_range, as returning nothing.

import triton
import triton.language as tl

VALID = tl.constexpr(8)
LOG2E = tl.constexpr(1.4426950408889634)
NOTHING = tl.constexpr(-1.0e30)  # a score that no exp2 notices, and without the NaN of inf - inf


@triton.jit
def _positions_tile(POSITIONS, FIRST, b, tile, Q, BLOCK_Q: tl.constexpr):
    """Of the queries of a tile: place n among the Q wanted, position (-1: none) and first visible key."""
    n = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    position = tl.load(POSITIONS + b * Q + n, mask=n < Q, other=-1)
    first = tl.load(FIRST + b * Q + n, mask=n < Q, other=0)
    return n, position, first


@triton.jit
def _query_tile(QUERY, position, b, h, qb, qh, qt, qd, D: tl.constexpr, BLOCK_D: tl.constexpr):
    d = tl.arange(0, BLOCK_D)
    at = QUERY + b.to(tl.int64) * qb + h.to(tl.int64) * qh + position[:, None].to(tl.int64) * qt + d[None, :] * qd
    return tl.load(at, mask=(position[:, None] >= 0) & (d[None, :] < D), other=0.0)


@triton.jit
def _key_tile(KEY, BITS, b, g, j, T, kb, kg, kt, kd, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr):
    """Positions, bits and keys (BLOCK_K, BLOCK_D) of key block j."""
    k, d = j * BLOCK_K + tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_D)
    at = KEY + b.to(tl.int64) * kb + g.to(tl.int64) * kg + k[:, None].to(tl.int64) * kt + d[None, :] * kd
    bits = tl.load(BITS + b * T + k, mask=k < T, other=0)
    return k, bits, tl.load(at, mask=(k[:, None] < T) & (d[None, :] < D), other=0.0)


@triton.jit
def _dot(a, b, WIDEN: tl.constexpr):
    """WIDEN: Triton's interpreter multiplies the bit patterns of bfloat16, so there its values go in as float32."""
    if WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _scores(q, key, position, first, k, bits, scale_log2, WIDEN: tl.constexpr):
    """Scores in units of log 2, NOTHING where the query does not see the key."""
    scores = _dot(q, tl.trans(key), WIDEN) * scale_log2
    seen = (k[None, :] <= position[:, None]) & (k[None, :] >= first[:, None]) & (((bits >> VALID) & 1) != 0)[None, :]
    return tl.where(seen, scores, NOTHING)


@triton.jit
def _score_gradient(scores, lse, bits, GRAD, BASE, at_n, n_ok, S: tl.constexpr):
    """dS of a tile; GRAD is (B, H, Q, S), BASE = Σ_s g_qs · M_qs is (B, H, Q), `at_n` the query's place in it."""
    p = tl.where(scores > NOTHING, tl.exp2(scores - lse[:, None]), 0.0)
    on_weight = p * 0.0 - tl.load(BASE + at_n, mask=n_ok, other=0.0)[:, None]
    for s in tl.static_range(S):
        grad = tl.load(GRAD + at_n * S + s, mask=n_ok, other=0.0)
        on_weight += grad[:, None] * ((bits >> s) & 1).to(tl.float32)[None, :]
    return p * on_weight


@triton.jit
def forward(
    QUERY, KEY, BITS, POSITIONS, FIRST, LSE, MASS, BLOCKS, COUNTS,
    qb, qh, qt, qd, kb, kg, kt, kd, scale_log2, H, GROUP, T, Q,
    S: tl.constexpr, COLUMNS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, KNOWN_LSE: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Masses (B, H, Q, S) of a tile of queries of one head. With KNOWN_LSE it visits the COUNTS[b] key blocks BLOCKS[b]
    that hold a span; else all that the queries see, with an online softmax, and writes LSE (in units of log 2)."""
    tile, bh = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    n, position, first = _positions_tile(POSITIONS, FIRST, b, tile, Q, BLOCK_Q)
    q = _query_tile(QUERY, position, b, h, qb, qh, qt, qd, D, BLOCK_D)
    high = tl.max(position, axis=0)
    low = tl.min(tl.where(position >= 0, first, T), axis=0)
    columns, at_n = tl.arange(0, COLUMNS), bh.to(tl.int64) * Q + n
    mass = tl.full((BLOCK_Q, COLUMNS), 0.0, tl.float32)
    if KNOWN_LSE:
        top = tl.load(LSE + at_n, mask=n < Q, other=0.0)
        start, stop = 0, tl.load(COUNTS + b)
    else:
        top = tl.full((BLOCK_Q,), NOTHING, tl.float32)
        start, stop = low // BLOCK_K, high // BLOCK_K + 1
    total = tl.full((BLOCK_Q,), 0.0, tl.float32)
    for i in range(start, stop):
        j = tl.load(BLOCKS + b * tl.cdiv(T, BLOCK_K) + i) if KNOWN_LSE else i
        if (j * BLOCK_K <= high) & ((j + 1) * BLOCK_K > low):
            k, bits, key = _key_tile(KEY, BITS, b, h // GROUP, j, T, kb, kg, kt, kd, D, BLOCK_D, BLOCK_K)
            scores = _scores(q, key, position, first, k, bits, scale_log2, WIDEN)
            if not KNOWN_LSE:
                new_top = tl.maximum(top, tl.max(scores, axis=1))
                shrink = tl.exp2(top - new_top)
                mass, total, top = mass * shrink[:, None], total * shrink, new_top
            p = tl.where(scores > NOTHING, tl.exp2(scores - top[:, None]), 0.0)
            total += tl.sum(p, axis=1)
            for s in tl.static_range(S):
                part = tl.sum(tl.where((((bits >> s) & 1) != 0)[None, :], p, 0.0), axis=1)
                mass += tl.where((columns == s)[None, :], part[:, None], 0.0)
    if not KNOWN_LSE:
        mass = mass / tl.where(total > 0, total, 1.0)[:, None]
        lse = tl.where(total > 0, top + tl.log2(tl.where(total > 0, total, 1.0)), float("inf"))
        tl.store(LSE + at_n, lse, mask=n < Q)
    mass = tl.where((position >= 0)[:, None], mass, 0.0)
    tl.store(MASS + at_n[:, None] * S + columns[None, :], mass, mask=(n < Q)[:, None] & (columns < S)[None, :])


@triton.jit
def backward_query(
    QUERY, KEY, BITS, POSITIONS, FIRST, LSE, GRAD, BASE, DQ,
    qb, qh, qt, qd, kb, kg, kt, kd, scale, H, GROUP, T, Q,
    S: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """DQ (B, H, Q, D) float32 of a tile of queries of one head."""
    tile, bh = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    n, position, first = _positions_tile(POSITIONS, FIRST, b, tile, Q, BLOCK_Q)
    q = _query_tile(QUERY, position, b, h, qb, qh, qt, qd, D, BLOCK_D)
    high = tl.max(position, axis=0)
    low = tl.min(tl.where(position >= 0, first, T), axis=0)
    d, at_n = tl.arange(0, BLOCK_D), bh.to(tl.int64) * Q + n
    lse = tl.load(LSE + at_n, mask=n < Q, other=float("inf"))
    dq = tl.full((BLOCK_Q, BLOCK_D), 0.0, tl.float32)
    for j in range(low // BLOCK_K, high // BLOCK_K + 1):
        k, bits, key = _key_tile(KEY, BITS, b, h // GROUP, j, T, kb, kg, kt, kd, D, BLOCK_D, BLOCK_K)
        scores = _scores(q, key, position, first, k, bits, scale * LOG2E, WIDEN)
        ds = _score_gradient(scores, lse, bits, GRAD, BASE, at_n, n < Q, S)
        dq += _dot(ds.to(key.dtype), key, WIDEN)
    tl.store(DQ + at_n[:, None] * D + d[None, :], dq * scale, mask=(n < Q)[:, None] & (d < D)[None, :])


@triton.jit
def backward_key(
    QUERY, KEY, BITS, POSITIONS, FIRST, LSE, GRAD, BASE, DK,
    qb, qh, qt, qd, kb, kg, kt, kd, scale, H, GROUP, T, Q,
    S: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """DK (B, G, T, D) of one key block and key head: over the heads of its group, over the query tiles that see it."""
    j, bg = tl.program_id(0), tl.program_id(1)
    b, g = bg // (H // GROUP), bg % (H // GROUP)
    k, bits, key = _key_tile(KEY, BITS, b, g, j, T, kb, kg, kt, kd, D, BLOCK_D, BLOCK_K)
    d = tl.arange(0, BLOCK_D)
    dk = tl.full((BLOCK_K, BLOCK_D), 0.0, tl.float32)
    for tile in range(0, tl.cdiv(Q, BLOCK_Q)):
        n, position, first = _positions_tile(POSITIONS, FIRST, b, tile, Q, BLOCK_Q)
        low = tl.min(tl.where(position >= 0, first, T), axis=0)
        if (tl.max(position, axis=0) >= j * BLOCK_K) & (low < (j + 1) * BLOCK_K):
            for member in range(0, GROUP):
                h = g * GROUP + member
                at_n = (b * H + h).to(tl.int64) * Q + n
                q = _query_tile(QUERY, position, b, h, qb, qh, qt, qd, D, BLOCK_D)
                lse = tl.load(LSE + at_n, mask=n < Q, other=float("inf"))
                scores = _scores(q, key, position, first, k, bits, scale * LOG2E, WIDEN)
                ds = _score_gradient(scores, lse, bits, GRAD, BASE, at_n, n < Q, S)
                dk += _dot(tl.trans(ds.to(q.dtype)), q, WIDEN)
    at = bg.to(tl.int64) * T * D + k[:, None].to(tl.int64) * D + d[None, :]
    tl.store(DK + at, dk * scale, mask=(k < T)[:, None] & (d < D)[None, :])
