"""The log-sum-exp taken from attention kernels: torch's CPU kernels for real. For flash-attn's operations and cuDNN's,
which are CUDA only, stand kernels under the same names, arguments and results."""

import importlib.util

import pytest
import torch

from avar_rl.attention import varlen
from avar_rl.attention.kernel_lse import KERNELS, CatchLogSumExp

B, H, T, D = 2, 3, 11, 8


def lse_of(query, key):
    """(B, H, T) of causal attention."""
    scores = (query @ key.transpose(-1, -2) * D**-0.5).masked_fill(
        ~torch.ones(T, T, dtype=torch.bool).tril(), -torch.inf
    )
    return scores.logsumexp(-1)


@pytest.fixture
def qkv():
    torch.manual_seed(0)
    return torch.randn(3, B, H, T, D).unbind()


def test_torchs_cpu_kernel(qkv):
    with CatchLogSumExp() as kernel:
        torch.nn.functional.scaled_dot_product_attention(*qkv, is_causal=True)
    torch.testing.assert_close(kernel.per_query(qkv[0]), lse_of(*qkv[:2]))


def test_one_call_for_each_packed_sequence(qkv):
    query, key, value = (x[:1] for x in qkv)
    with CatchLogSumExp() as kernel:
        for part in (slice(0, 1), slice(1, 11)):
            torch.nn.functional.scaled_dot_product_attention(
                query[:, :, part], key[:, :, part], value[:, :, part], is_causal=True
            )
    lse = kernel.per_query(query)
    assert lse.shape == (1, H, T)
    torch.testing.assert_close(lse[0, :, 0], (query * key).sum(-1)[0, :, 0] * D**-0.5)


def test_nothing_caught_and_layouts_that_do_not_fit(qkv):
    with CatchLogSumExp() as kernel:
        qkv[0] @ qkv[1].transpose(-1, -2)
    assert kernel.per_query(qkv[0]) is None
    with CatchLogSumExp() as kernel:
        torch.nn.functional.scaled_dot_product_attention(*qkv, is_causal=True)
    assert kernel.per_query(qkv[0][:, :2]) is None  # other heads
    assert kernel.per_query(qkv[0][:1]) is None  # another batch
    assert kernel.per_query(torch.cat([qkv[0]] * 2, dim=2)) is None  # more tokens


@pytest.fixture
def flash_attn_operations():
    """flash_attn::_flash_attn_forward and _flash_attn_varlen_forward of flash-attn 2.8.3, results on a CPU."""
    if importlib.util.find_spec("flash_attn"):
        pytest.skip("flash-attn itself is here")
    tail = "float dropout_p, float softmax_scale, bool causal) -> (Tensor, Tensor, Tensor, Tensor)"
    library = torch.library.Library("flash_attn", "DEF")
    library.define(f"_flash_attn_forward(Tensor q, Tensor k, Tensor v, {tail}")
    library.define(f"_flash_attn_varlen_forward(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens_q, {tail}")
    nothing = torch.empty(0)

    def forward(q, k, v, *_):  # (B, T, H, D) → lse (B, H, T)
        return q.clone(), lse_of(q.transpose(1, 2), k.transpose(1, 2)), nothing, nothing

    def varlen(q, k, v, cu_seqlens, *_):  # (N, H, D) → lse (H, N)
        return q.clone(), torch.arange(float(q.shape[0])).expand(q.shape[1], -1).clone(), nothing, nothing

    library.impl("_flash_attn_forward", forward, "CPU")
    library.impl("_flash_attn_varlen_forward", varlen, "CPU")
    yield torch.ops.flash_attn
    library._destroy()


def test_flash_attn(qkv, flash_attn_operations):
    with CatchLogSumExp() as kernel:
        flash_attn_operations._flash_attn_forward(*(x.transpose(1, 2) for x in qkv), 0.0, 0.3, True)
    torch.testing.assert_close(kernel.per_query(qkv[0]), lse_of(*qkv[:2]))


def test_flash_attn_varlen_packed_and_unpadded(qkv, flash_attn_operations):
    def run(tokens):
        x = torch.zeros(tokens, H, D)
        with CatchLogSumExp() as kernel:
            flash_attn_operations._flash_attn_varlen_forward(x, x, x, torch.tensor([0, tokens]), 0.0, 0.3, True)
        return kernel

    packed = run(T).per_query(qkv[0][:1])
    assert packed.shape == (1, H, T) and packed[0, 1].tolist() == list(range(T))
    # transformers takes padding out first: 4 tokens of the first sequence, 11 of the second remain
    valid = torch.arange(T) >= torch.tensor([[7], [0]])
    unpadded = run(15).per_query(qkv[0], valid)
    assert unpadded[0, 0].tolist() == [0] * 7 + [0, 1, 2, 3] and unpadded[1, 2].tolist() == list(range(4, 15))
    assert run(14).per_query(qkv[0], valid) is None


@pytest.fixture
def on_a_cpu():
    """A function that gives an operation of torch, which has none, a CPU kernel; undone after the test."""
    libraries = []

    def register(name, kernel):
        libraries.append(torch.library.Library("aten", "IMPL"))
        libraries[-1].impl(name, kernel, "CPU")

    yield register
    for library in libraries:
        library._destroy()


@pytest.mark.parametrize("wanted", [True, False])
def test_cudnn_gives_its_log_sum_exp_with_a_last_dimension_of_one_or_none_at_all(qkv, on_a_cpu, wanted):
    def kernel(query, key, value, attn_bias, compute_log_sumexp, *_, **__):
        lse = lse_of(query, key)[..., None] if compute_log_sumexp else torch.empty(0)
        return query.clone(), lse, torch.empty(0), torch.empty(0), T, T, torch.empty(0), torch.empty(0), torch.empty(0)

    on_a_cpu("_scaled_dot_product_cudnn_attention", kernel)
    with CatchLogSumExp() as caught:
        torch.ops.aten._scaled_dot_product_cudnn_attention(*qkv, None, wanted, 0.0, True)
    lse = caught.per_query(qkv[0])
    if wanted:
        torch.testing.assert_close(lse, lse_of(*qkv[:2]))
    else:
        assert lse is None


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("aten::_scaled_dot_product_flash_attention_for_cpu", ("output", "logsumexp")),
        ("aten::_scaled_dot_product_flash_attention", ("output", "logsumexp")),
        ("aten::_scaled_dot_product_efficient_attention", ("output", "log_sumexp")),
        ("aten::_scaled_dot_product_cudnn_attention", ("output", "logsumexp")),
        ("aten::_flash_attention_forward", ("output", "softmax_logsumexp")),
    ],
)
def test_torch_still_returns_the_log_sum_exp_second(name, results):
    assert name in KERNELS
    returns = torch._C._get_schema(name, "").returns
    assert tuple(value.name for value in returns[:2]) == results


def test_what_is_caught_is_no_part_of_the_graph():
    """Results of a custom operation join the graph after they were caught."""
    x = torch.randn(4, H, D, requires_grad=True)
    borders = torch.tensor([0, 4])
    with CatchLogSumExp() as kernel:
        output = varlen.flash_attn_varlen_func(x, x, x, borders, borders, 4, 4, causal=True)
    assert output.requires_grad
    lse = kernel.per_query(x.transpose(0, 1)[None])
    assert lse is not None and not lse.requires_grad
