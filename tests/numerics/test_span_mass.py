"""Span mass against the whole attention map, and by hand."""

import math

import pytest
import torch

from avar_rl.attention.span_mass import chunked, span_mass

B, H, H_KV, T, D, S = 2, 4, 2, 17, 8, 3


def whole_map(query, key, spans, positions=None, cu_seqlens=None, valid=None, scale=None):
    """The same numbers by way of the S×S map: (masses, lse)."""
    batch, heads, tokens, dim = query.shape
    key = key.repeat_interleave(heads // key.shape[1], 1)
    visible = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(batch, -1, -1)
    if cu_seqlens is not None:
        sequence = torch.bucketize(torch.arange(tokens), cu_seqlens[1:-1], right=True)
        visible = visible & (sequence[:, None] == sequence)
    if valid is not None:
        visible = visible & valid[:, None]
    scores = query @ key.transpose(-1, -2) * (dim**-0.5 if scale is None else scale)
    scores = scores.masked_fill(~visible[:, None], -math.inf)
    masses = torch.einsum("bhqk,bsk->bshq", scores.softmax(-1).nan_to_num(0.0), spans.to(query.dtype))
    if valid is not None:
        masses = masses * valid[:, None, None]
    if positions is not None:
        index = positions.clamp(min=0)[:, None, None].expand(*masses.shape[:3], -1)
        masses = masses.gather(3, index) * (positions >= 0)[:, None, None]
    return masses, scores.logsumexp(-1)


def random_case(dtype=torch.float64, batch=B):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(batch, H, T, D, dtype=dtype, generator=generator, requires_grad=True)
    key = torch.randn(batch, H_KV, T, D, dtype=dtype, generator=generator, requires_grad=True)
    return query, key, torch.rand(batch, S, T, generator=generator) > 0.5


LEFT_PADDED = torch.arange(T) >= torch.tensor([[5], [0]])
RIGHT_PADDED = torch.arange(T) < torch.tensor([[13], [17]])
POSITIONS = torch.tensor([[3, 9, 16, -1], [0, 12, -1, -1]])


@pytest.fixture(params=[1 << 20, 150], ids=["one chunk", "many chunks"])
def chunk(request, monkeypatch):
    monkeypatch.setitem(chunked._CHUNK_SCORES, "cpu", request.param)


@pytest.mark.parametrize("valid", [None, LEFT_PADDED, RIGHT_PADDED], ids=["no padding", "left", "right"])
@pytest.mark.parametrize(
    "positions", [None, POSITIONS, POSITIONS.flip(1)], ids=["all positions", "positions", "descending positions"]
)
def test_masses_and_gradients_equal_the_whole_map(chunk, positions, valid):
    query, key, spans = random_case()
    masses = span_mass(query, key, spans, query_positions=positions, valid=valid)
    expected, _ = whole_map(query, key, spans, positions, valid=valid)
    torch.testing.assert_close(masses, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(expected)
    got = torch.autograd.grad((masses * weight).sum(), (query, key))
    want = torch.autograd.grad((expected * weight).sum(), (query, key))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "positions", [None, torch.tensor([[16, 2, 5, 6, -1, 9, 16]])], ids=["all positions", "positions"]
)
def test_packed_queries_see_their_own_sequence_only(chunk, positions):
    query, key, spans = random_case(batch=1)
    cu_seqlens = torch.tensor([0, 6, 7, 17], dtype=torch.int32)
    masses = span_mass(query, key, spans, query_positions=positions, cu_seqlens=cu_seqlens)
    expected, _ = whole_map(query, key, spans, positions, cu_seqlens)
    torch.testing.assert_close(masses, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(expected)
    got = torch.autograd.grad((masses * weight).sum(), (query, key))
    want = torch.autograd.grad((expected * weight).sum(), (query, key))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("positions", [None, POSITIONS], ids=["all positions", "positions"])
def test_known_lse_gives_the_same_masses_and_gradients(chunk, positions):
    query, key, spans = random_case()
    spans = spans & (torch.arange(T) % 3 > 0)  # leaves keys that belong to no span
    masses, lse = whole_map(query, key, spans, positions, valid=LEFT_PADDED)
    with_lse = span_mass(query, key, spans, query_positions=positions, valid=LEFT_PADDED, lse=lse.detach())
    torch.testing.assert_close(with_lse, masses, rtol=0, atol=1e-12)
    weight = torch.randn_like(masses)
    got = torch.autograd.grad((with_lse * weight).sum(), (query, key))
    want = torch.autograd.grad((masses * weight).sum(), (query, key))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_gradcheck():
    query, key, spans = random_case()
    positions = torch.tensor([[3, 9, 16, -1], [0, 12, 12, -1]])  # a query asked for twice, too
    assert torch.autograd.gradcheck(
        lambda q, k: span_mass(q, k, spans, query_positions=positions, valid=LEFT_PADDED, scale=0.7), (query, key)
    )


def test_by_hand():
    # One head, dimension 1, scale 1. Row 2 scores its three keys log 1, log 2, log 5: weights 1/8, 2/8, 5/8.
    # Row 1 sees the first two only: 1/3, 2/3. Spans: keys {1, 2} and {0}.
    query = torch.tensor([0.0, 1.0, 1.0]).view(1, 1, 3, 1)
    key = torch.tensor([1.0, 2.0, 5.0]).log().view(1, 1, 3, 1)
    spans = torch.tensor([[[False, True, True], [True, False, False]]])
    masses = span_mass(query, key, spans, query_positions=torch.tensor([[2, 1, -1]]), scale=1.0)
    assert masses.shape == (1, 2, 1, 3) and masses.dtype == torch.float32
    torch.testing.assert_close(masses[0, :, 0], torch.tensor([[7 / 8, 2 / 3, 0.0], [1 / 8, 1 / 3, 0.0]]))


def test_half_precision_scores_in_float32():
    query, key, spans = random_case(torch.float32)
    query, key = query.detach().bfloat16(), key.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        masses = span_mass(query, key, spans)
    assert masses.dtype == torch.float32
    torch.testing.assert_close(masses, whole_map(query.float(), key.float(), spans)[0], rtol=0, atol=1e-6)


def test_extreme_scores_stay_finite():
    query, key, spans = random_case(torch.float32)
    masses = span_mass(query * 1e4, key * 1e4, spans, valid=LEFT_PADDED)
    masses.sum().backward()
    assert masses.isfinite().all() and query.grad.isfinite().all() and key.grad.isfinite().all()


def test_no_queries():
    query, key, spans = random_case()
    masses = span_mass(query, key, spans, query_positions=torch.empty(B, 0, dtype=torch.int64))
    assert masses.shape == (B, S, H, 0)
    masses.sum().backward()
    assert query.grad.abs().sum() == 0


def test_bad_shapes_are_refused():
    query, key, spans = random_case()
    with pytest.raises(ValueError, match="no key cache"):
        span_mass(query[:, :, -1:], key, spans)
    with pytest.raises(ValueError, match="spans must be bool"):
        span_mass(query, key, spans.float())
    with pytest.raises(ValueError, match="query_positions must be int64"):
        span_mass(query, key, spans, query_positions=POSITIONS.int())
    with pytest.raises(ValueError, match="B = 1"):
        span_mass(query, key, spans, cu_seqlens=torch.tensor([0, T]))
    with pytest.raises(ValueError, match="lse must have shape"):
        span_mass(query, key, spans, lse=torch.zeros(B, H, 1))
    with pytest.raises(ValueError, match="valid must have shape"):
        span_mass(query, key, spans, valid=torch.ones(B, 1, dtype=torch.bool))


def test_memory_is_linear_in_tokens(monkeypatch):
    """Never a tensor larger than the inputs and one chunk: here 64 × smaller than the map of all heads."""
    from torch.utils._python_dispatch import TorchDispatchMode

    monkeypatch.setitem(chunked._CHUNK_SCORES, "cpu", 1 << 14)

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.numbers = max(self.numbers, out.untyped_storage().nbytes() // 4)
            return out

    query = torch.randn(1, 2, 1024, 4, requires_grad=True)
    key = torch.randn(1, 2, 1024, 4, requires_grad=True)
    with Largest() as largest:
        span_mass(query, key, torch.rand(1, 2, 1024) > 0.5).sum().backward()
    assert 0 < largest.numbers <= 1 << 15  # the map is 2 · 1024 · 1024 = 1 << 21
