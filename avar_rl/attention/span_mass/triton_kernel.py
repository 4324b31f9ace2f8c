"""Triton kernels of span mass: log-sum-exp, masses, and backward in the wanted queries and in the key.

    P_qk = exp2(scale · log2(e) · x_q · y_k − log2(e) · LSE_q) for keys k that query q sees, else 0
    M_qs = Σ_k P_qk · 1[k ∈ s]        dS_qk = P_qk · Σ_s g_qs · (1[k ∈ s] − M_qs)
    dx_q = scale · Σ_k dS_qk · y_k    dy_k = scale · Σ_q dS_qk · x_q

x are the query vectors, y the key vectors, g the gradient of the masses M. Scores, P and sums are float32; dS is
rounded to the input type for the products of the backward pass, as in flash attention. Each output tile is written by
one program in a fixed order, so results are deterministic. Every key carries one int32: bit s is membership in span s,
bit VALID that it is no padding. Queries of position -1 see nothing. LSE_Q, of the wanted queries, is in units of log 2.
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
def _score_gradient(scores, lse, bits, GRAD, MASS, at_n, n_ok, S: tl.constexpr):
    """dS of a tile; GRAD and MASS are (B, H, Q, S), `at_n` the query's place in them."""
    p = tl.where(scores > NOTHING, tl.exp2(scores - lse[:, None]), 0.0)
    on_weight = p * 0.0
    for s in tl.static_range(S):
        grad = tl.load(GRAD + at_n * S + s, mask=n_ok, other=0.0)
        mass = tl.load(MASS + at_n * S + s, mask=n_ok, other=0.0)
        on_weight += grad[:, None] * (((bits >> s) & 1).to(tl.float32)[None, :] - mass[:, None])
    return p * on_weight


@triton.jit
def log_sum_exp(
    QUERY, KEY, BITS, POSITIONS, FIRST, LSE_Q,
    qb, qh, qt, qd, kb, kg, kt, kd, scale, H, GROUP, T, Q,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """LSE_Q (B, H, Q) of a tile of queries of one head, over all that they see: an online softmax."""
    tile, bh = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    n, position, first = _positions_tile(POSITIONS, FIRST, b, tile, Q, BLOCK_Q)
    q = _query_tile(QUERY, position, b, h, qb, qh, qt, qd, D, BLOCK_D)
    low = tl.min(tl.where(position >= 0, first, T), axis=0)
    top = tl.full((BLOCK_Q,), NOTHING, tl.float32)
    total = tl.full((BLOCK_Q,), 0.0, tl.float32)
    for j in range(low // BLOCK_K, tl.max(position, axis=0) // BLOCK_K + 1):
        k, bits, key = _key_tile(KEY, BITS, b, h // GROUP, j, T, kb, kg, kt, kd, D, BLOCK_D, BLOCK_K)
        scores = _scores(q, key, position, first, k, bits, scale * LOG2E, WIDEN)
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        p = tl.where(scores > NOTHING, tl.exp2(scores - new_top[:, None]), 0.0)
        total, top = total * tl.exp2(top - new_top) + tl.sum(p, axis=1), new_top
    lse = tl.where(total > 0, top + tl.log2(tl.where(total > 0, total, 1.0)), float("inf"))
    tl.store(LSE_Q + bh.to(tl.int64) * Q + n, lse, mask=n < Q)


@triton.jit
def _pair_tile(KEY, MEMBER, begin, T, kt, kd, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr):
    """Keys (BLOCK_K, BLOCK_D) from position `begin`, and whether they belong to the pair's spans, each (1, BLOCK_K)."""
    n, d = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_D)
    at = KEY + begin.to(tl.int64) * kt + (n[:, None] * kt + d[None, :] * kd)
    key = tl.load(at, mask=(n[:, None] < T - begin) & (d[None, :] < D), other=0.0)
    member_0 = tl.load(MEMBER + begin + n, mask=n < T - begin, other=0.0)
    member_1 = tl.load(MEMBER + T + begin + n, mask=n < T - begin, other=0.0)
    return key, member_0[None, :], member_1[None, :]


@triton.jit
def _weights(q, key, scale, lse, WIDEN: tl.constexpr):
    """Attention weights. None is over 1: the minimum keeps what a query does not see from becoming infinite."""
    return tl.exp2(tl.minimum(_dot(q, tl.trans(key), WIDEN) * (scale * LOG2E) - lse[:, None], 0.0))


@triton.jit
def masses(
    QUERY, KEY, MEMBER, POSITIONS, FIRST, LSE, LSE_Q, MASS, BLOCKS, RANKS,
    qb, qh, qt, qd, kb, kg, kt, kd, scale, H, GROUP, T, Q, lb, lh, lt,
    S: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    KNOWN_LSE: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """MASS (B, H, Q, S) of a tile of queries of one head, on the two spans of a pair.

    MEMBER, float32 (P, B, 2, T), is 1 for keys of the pair's spans that are no padding, else 0. Of the pair's key
    blocks, those with a span (BLOCKS, ascending), it visits what the tile sees; RANKS[j] of them come before block j.
    KNOWN_LSE: LSE (B, H, T), natural, is read and LSE_Q written; else LSE_Q is read.
    """
    tile, bh, pair = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b, h = bh // H, bh % H
    n, position, first = _positions_tile(POSITIONS, FIRST, b, tile, Q, BLOCK_Q)
    q = _query_tile(QUERY, position, b, h, qb, qh, qt, qd, D, BLOCK_D)
    at_n = bh.to(tl.int64) * Q + n
    if KNOWN_LSE:
        at = LSE + b.to(tl.int64) * lb + h.to(tl.int64) * lh + position.to(tl.int64) * lt
        lse = tl.load(at, mask=position >= 0, other=float("inf")) * LOG2E
        tl.store(LSE_Q + at_n, lse, mask=n < Q)
    else:
        lse = tl.load(LSE_Q + at_n, mask=n < Q, other=float("inf"))
    # Keys from low to last are seen by some query of the tile, those from whole_low up to whole_end by all of them.
    alive = position >= 0
    low, whole_low = tl.min(tl.where(alive, first, T), axis=0), tl.max(tl.where(alive, first, 0), axis=0)
    last, whole_end = tl.max(position, axis=0), tl.min(tl.where(alive, position + 1, T), axis=0)
    N, row = tl.cdiv(T, BLOCK_K), pair * (tl.num_programs(1) // H) + b
    RANKS += row * (N + 1)
    BLOCKS += row * N
    MEMBER += row * 2 * T
    start, stop = tl.load(RANKS + low // BLOCK_K), tl.load(RANKS + (last + BLOCK_K) // BLOCK_K)
    whole_start, whole_stop = tl.load(RANKS + tl.cdiv(whole_low, BLOCK_K)), tl.load(RANKS + whole_end // BLOCK_K)
    whole_start = tl.minimum(whole_start, stop)
    whole = tl.maximum(whole_stop - whole_start, 0)
    KEY += b.to(tl.int64) * kb + (h // GROUP).to(tl.int64) * kg
    mass_0 = tl.full((BLOCK_Q, BLOCK_K), 0.0, tl.float32)
    mass_1 = tl.full((BLOCK_Q, BLOCK_K), 0.0, tl.float32)
    # Two loops: of a branch in one, the compiler makes a selection for every weight.
    for i in range(start, stop - whole):
        begin = tl.load(BLOCKS + tl.where(i < whole_start, i, i + whole)) * BLOCK_K
        key, member_0, member_1 = _pair_tile(KEY, MEMBER, begin, T, kt, kd, D, BLOCK_D, BLOCK_K)
        k = begin + tl.arange(0, BLOCK_K)
        seen = (k[None, :] <= position[:, None]) & (k[None, :] >= first[:, None])
        p = tl.where(seen, _weights(q, key, scale, lse, WIDEN), 0.0)
        mass_0 += p * member_0
        mass_1 += p * member_1
    for i in range(whole_start, whole_start + whole):
        begin = tl.load(BLOCKS + i) * BLOCK_K
        key, member_0, member_1 = _pair_tile(KEY, MEMBER, begin, T, kt, kd, D, BLOCK_D, BLOCK_K)
        p = _weights(q, key, scale, lse, WIDEN)
        mass_0 += p * member_0
        mass_1 += p * member_1
    tl.store(MASS + at_n * S + 2 * pair, tl.sum(mass_0, axis=1), mask=n < Q)
    if 2 * pair + 1 < S:
        tl.store(MASS + at_n * S + 2 * pair + 1, tl.sum(mass_1, axis=1), mask=n < Q)


@triton.jit
def backward_query(
    QUERY, KEY, BITS, POSITIONS, FIRST, LSE_Q, GRAD, MASS, DQ,
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
    lse = tl.load(LSE_Q + at_n, mask=n < Q, other=float("inf"))
    dq = tl.full((BLOCK_Q, BLOCK_D), 0.0, tl.float32)
    for j in range(low // BLOCK_K, high // BLOCK_K + 1):
        k, bits, key = _key_tile(KEY, BITS, b, h // GROUP, j, T, kb, kg, kt, kd, D, BLOCK_D, BLOCK_K)
        scores = _scores(q, key, position, first, k, bits, scale * LOG2E, WIDEN)
        ds = _score_gradient(scores, lse, bits, GRAD, MASS, at_n, n < Q, S)
        dq += _dot(ds.to(key.dtype), key, WIDEN)
    tl.store(DQ + at_n[:, None] * D + d[None, :], dq * scale, mask=(n < Q)[:, None] & (d < D)[None, :])


@triton.jit
def backward_key(
    QUERY, KEY, BITS, POSITIONS, FIRST, LSE_Q, GRAD, MASS, DK,
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
                lse = tl.load(LSE_Q + at_n, mask=n < Q, other=float("inf"))
                scores = _scores(q, key, position, first, k, bits, scale * LOG2E, WIDEN)
                ds = _score_gradient(scores, lse, bits, GRAD, MASS, at_n, n < Q, S)
                dk += _dot(tl.trans(ds.to(q.dtype)), q, WIDEN)
    at = bg.to(tl.int64) * T * D + k[:, None].to(tl.int64) * D + d[None, :]
    tl.store(DK + at, dk * scale, mask=(k < T)[:, None] & (d < D)[None, :])
