"""Packed attention from torch's own operation, on the CPU kernel that stands in for CUDA's, against float64 by hand."""

import pytest
import torch

from avar_rl.attention import varlen
from avar_rl.attention.kernel_lse import CatchLogSumExp
from tests.numerics.tiny_qwen import FAMILIES, make_model

H, H_KV, D = 4, 2, 16
LENGTHS = [3, 1, 70, 7]
# Largest error seen over these cases: output, log-sum-exp, gradients; about three times that is allowed.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 4e-6, torch.bfloat16: 6e-2}


def by_hand(q, k, v, allowed):
    """Output (X, H, D) and log-sum-exp (H, X) of whole maps."""
    scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(H // H_KV, 1)) * D**-0.5
    scores = scores.masked_fill(~allowed, -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.repeat_interleave(H // H_KV, 1)), scores.logsumexp(-1)


def visible(causal: bool, window: tuple[int, int]) -> torch.Tensor:
    """(X, X): what each query sees, from its own sequence only."""
    lengths = torch.tensor(LENGTHS)
    sequence = torch.arange(len(LENGTHS)).repeat_interleave(lengths)
    position = torch.cat([torch.arange(n) for n in LENGTHS])
    ahead = position - position[:, None]
    allowed = sequence == sequence[:, None]
    left, right = window[0], 0 if causal else window[1]
    allowed &= (ahead >= -left) | (left < 0)
    return allowed & ((ahead <= right) | (right < 0))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("causal", "window"), [(True, (-1, -1)), (False, (-1, -1)), (True, (2, 2)), (False, (1, 2)), (False, (-1, 0))]
)
def test_output_log_sum_exp_and_gradients(dtype, causal, window):
    torch.manual_seed(0)
    shapes = [(sum(LENGTHS), heads, D) for heads in (H, H_KV, H_KV)]
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    borders = torch.tensor([0, *LENGTHS]).cumsum(0)
    with CatchLogSumExp() as kernel:
        output = varlen.flash_attn_varlen_func(
            q, k, v, borders, borders, torch.tensor(70), torch.tensor(70), causal=causal, window_size=window
        )
    weights = torch.randn_like(output)
    grads = torch.autograd.grad((output * weights).sum(), (q, k, v))
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected, lse = by_hand(*exact, visible(causal, window))
    expected_grads = torch.autograd.grad((expected * weights).sum(), exact)
    within = dict(rtol=0, atol=TOLERANCE[dtype], check_dtype=False)
    torch.testing.assert_close(output, expected, **within)
    torch.testing.assert_close(kernel.per_query(q.transpose(0, 1)[None])[0], lse, **within)
    for found, right in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(found, right, **within)


def test_a_batch_without_padding_is_as_many_sequences_and_its_log_sum_exp_fits():
    q, k, v = (torch.randn(3, 5, heads, D) for heads in (H, H_KV, H_KV))
    with CatchLogSumExp() as kernel:
        output = varlen.flash_attn_func(q, k, v, causal=True)
    lse = kernel.per_query(q.transpose(1, 2))
    for row in range(3):
        expected, expected_lse = by_hand(q[row], k[row], v[row], torch.ones(5, 5).tril().bool())
        torch.testing.assert_close(output[row], expected)
        torch.testing.assert_close(lse[row], expected_lse)


def test_what_torchs_operation_cannot_do_is_refused():
    x, borders = torch.randn(4, H, D), torch.tensor([0, 4])
    with pytest.raises(ValueError, match=r"attention_dropout=0\.1: torch's packed attention has no dropout"):
        varlen.flash_attn_varlen_func(x, x, x, borders, borders, 4, 4, dropout_p=0.1)
    with pytest.raises(ValueError, match="FLASH_ATTENTION_DETERMINISTIC=1 is for flash-attn"):
        varlen.flash_attn_varlen_func(x, x, x, borders, borders, 4, 4, deterministic=True)
    with pytest.raises(ValueError, match="1 queries on 4 keys: decoding needs another implementation"):
        varlen.flash_attn_func(x[None, :1], x[None], x[None])
    with pytest.raises(ValueError, match="packed attention on a CPU is self-attention"):
        varlen.flash_attn_varlen_func(x, x, x, borders, torch.tensor([0, 3]), 4, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_vision_tower_sees_the_same_images_and_windows_as_under_eager_attention(family):
    """Two blocks; Qwen2.5-VL's first one attends within windows of 4 x 4 patches, of which an edge cuts some."""
    varlen.register()
    grid = torch.tensor([[1, 8, 12], [1, 4, 6], [2, 4, 4]])
    pixels = torch.randn(int(grid.prod(1).sum()), 1176)
    changes = {"depth": 2} | ({"fullatt_block_indexes": [1]} if family == "qwen2_5_vl" else {})
    outputs, grads = [], []
    for implementation in ("eager", varlen.NAME):
        tower = make_model(implementation, family, **changes).model.visual
        found = tower(pixels, grid_thw=grid).pooler_output
        found.square().mean().backward()
        outputs.append(found.detach())
        grads.append(torch.cat([p.grad.flatten() for p in tower.parameters() if p.grad is not None]))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
    assert (grads[1] - grads[0]).norm() <= 1e-5 * grads[0].norm()
