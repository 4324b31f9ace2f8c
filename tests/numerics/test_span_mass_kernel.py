"""Every implementation of span mass against float64, as flash attention's tests do: error(ours) ≤ 2 · error(plain torch
in the same type) + a rounding floor. Without a GPU the Triton kernel runs in Triton's interpreter."""

import importlib

import pytest
import torch

from avar_rl.attention.span_mass import span_mass
from benchmarks.accuracy import errors, log_sum_exp, ours

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        importlib.import_module(
            "avar_rl.attention.span_mass.triton_kernel"
        )  # the kernels are made interpretable at import


@pytest.fixture
def run(monkeypatch):
    """Masses and the gradients of query and key of one implementation."""

    def run(name, query, key, spans, weight, **kwargs):
        monkeypatch.setenv("AVAR_SPAN_MASS", name)
        return ours(query, key, spans, weight, **kwargs)

    return run


def case(T, dtype, *, B=1, H=2, G=1, D=64, Q=9, S=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(B, H, T, D, generator=generator).to(DEVICE, dtype)
    key = torch.randn(B, G, T, D, generator=generator).to(DEVICE, dtype)
    spans = (torch.rand(B, S, T, generator=generator) > 0.6).to(DEVICE)
    positions = torch.randint(0, T, (B, Q), generator=generator).sort().values
    positions[:, -1] = -1
    return query, key, spans, torch.randn(B, S, H, Q, generator=generator).to(DEVICE), positions.to(DEVICE)


def assert_as_exact_as_torch(run, name, query, key, spans, weight, **kwargs):
    results = run(name, query, key, spans, weight, **kwargs)
    assert results[0].dtype == torch.float32
    for error in errors(results, query, key, spans, weight, **kwargs):
        assert error.found <= error.allowed, error
    return results


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("T", [1, 17, 123, 1000, 4097])
@pytest.mark.parametrize("name", ["torch", "triton"])
def test_lengths_and_types(run, name, T, dtype):
    if DEVICE == "cpu" and T > 1000 and dtype != torch.bfloat16:
        pytest.skip("slow without a GPU, and the same code")
    query, key, spans, weight, positions = case(T, dtype)
    assert_as_exact_as_torch(run, name, query, key, spans, weight, query_positions=positions)


@pytest.mark.parametrize(("H", "G", "D"), [(7, 1, 64), (4, 2, 80), (3, 3, 96), (6, 2, 128), (2, 2, 8)])
@pytest.mark.parametrize("name", ["torch", "triton"])
def test_head_dims_and_groups(run, name, H, G, D):
    query, key, spans, weight, positions = case(70, torch.float32, B=2, H=H, G=G, D=D, Q=40)
    assert_as_exact_as_torch(run, name, query, key, spans, weight, query_positions=positions, scale=0.3)


@pytest.mark.parametrize("known_lse", [False, True])
@pytest.mark.parametrize("name", ["torch", "triton"])
def test_padding_and_duplicate_queries(run, name, known_lse):
    query, key, spans, weight, positions = case(90, torch.float32, B=2, H=4, G=2, Q=33)
    positions[:, 5] = positions[:, 4]
    valid = torch.arange(90, device=DEVICE) >= torch.tensor([[31], [0]], device=DEVICE)
    spans[:, :, 40:] = False  # some key blocks hold no span
    lse = log_sum_exp(query, key, valid=valid) if known_lse else None
    assert_as_exact_as_torch(run, name, query, key, spans, weight, query_positions=positions, valid=valid, lse=lse)


@pytest.mark.parametrize("known_lse", [False, True])
@pytest.mark.parametrize("name", ["torch", "triton"])
def test_packed_sequences_of_length_one_and_more(run, name, known_lse):
    query, key, spans, weight, _ = case(75, torch.float32, H=4, G=2, Q=75)
    cu_seqlens = torch.tensor([0, 1, 2, 40, 41, 75], dtype=torch.int32, device=DEVICE)
    positions = torch.arange(75, device=DEVICE)[None]
    lse = log_sum_exp(query, key, cu_seqlens=cu_seqlens) if known_lse else None
    ours = assert_as_exact_as_torch(
        run, name, query, key, spans, weight, query_positions=positions, cu_seqlens=cu_seqlens, lse=lse
    )
    for token in (0, 1, 40):  # a token alone puts all its attention on itself
        torch.testing.assert_close(ours[0][0, :, :, token], spans[0, :, None, token].float().expand(-1, 4))


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_spans_of_nothing_of_everything_and_behind_the_row(run, name):
    query, key, spans, weight, _ = case(50, torch.float32, S=3, Q=4)
    positions = torch.tensor([[0, 10, 49, -1]], device=DEVICE)
    spans[:, 0], spans[:, 1] = False, True
    spans[:, 2] = torch.arange(50, device=DEVICE) > 20
    masses, dq, _ = run(name, query, key, spans, torch.ones_like(weight), query_positions=positions)
    assert (masses[:, 0] == 0).all() and (masses[..., 3] == 0).all()
    torch.testing.assert_close(masses[:, 1, :, :3], torch.ones(1, 2, 3, device=DEVICE))
    assert (masses[:, 2, :, :2] == 0).all() and (masses[:, 2, :, 2] > 0).all()
    assert dq[:, :, 1:10].abs().sum() == 0  # not asked for


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_strided_inputs(run, name):
    """As attention gives them: (B, T, H, D) transposed; key heads taken out of repeated ones."""
    query, key, spans, weight, positions = case(40, torch.float32, H=4, G=2, Q=12)
    strided_query = query.transpose(1, 2).contiguous().transpose(1, 2)
    strided_key = key.repeat_interleave(3, 1)[:, ::3]
    assert not strided_query.is_contiguous() and not strided_key.is_contiguous()
    for got, expected in zip(
        run(name, strided_query, strided_key, spans, weight, query_positions=positions),
        run(name, query, key, spans, weight, query_positions=positions),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_all_queries_with_a_strided_lse(run, name):
    """As flash attention's unpadded log-sum-exp comes back: (B, T, H) transposed."""
    query, key, spans, _, _ = case(40, torch.float32, H=4, G=2)
    lse = log_sum_exp(query, key).transpose(1, 2).contiguous().transpose(1, 2)
    expected = run("reference", query, key, spans, 1.0)
    for got, wanted in zip(run(name, query, key, spans, 1.0, lse=lse), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_more_spans_than_one_pass_takes(run):
    query, key, spans, weight, positions = case(30, torch.float32, S=11)
    assert_as_exact_as_torch(run, "triton", query, key, spans, weight, query_positions=positions)


def test_the_kernel_is_deterministic(run):
    query, key, spans, weight, positions = case(100, torch.float32, H=4, G=2, Q=50)
    first = run("triton", query, key, spans, weight, query_positions=positions)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first, run("triton", query, key, spans, weight, query_positions=positions), strict=True)
    )


def test_with_a_known_lse_only_key_blocks_with_a_span_are_read(run):
    # Keys elsewhere are NaN: had the kernel read their block, the masses would be NaN.
    query, key, spans, _, positions = case(200, torch.float32, H=2, G=1)
    spans[:] = False
    spans[:, 0, 70:90] = True
    lse = log_sum_exp(query, key)
    expected, _, _ = run("torch", query, key, spans, 1.0, query_positions=positions, lse=lse)
    key[:, :, :64], key[:, :, 96:] = torch.nan, torch.nan
    with torch.no_grad():
        got = span_mass(query, key, spans, query_positions=positions, lse=lse)
    torch.testing.assert_close(got, expected)


def test_an_implementation_that_cannot_run_is_refused(monkeypatch):
    query, key, spans, _, positions = case(5, torch.float32)
    for value, message in (("cuda", "AVAR_SPAN_MASS='cuda' is unknown"), ("triton", "interpreter|triton is not")):
        monkeypatch.setenv("AVAR_SPAN_MASS", value)
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        if DEVICE == "cpu" or value != "triton":
            with pytest.raises(ValueError, match=message):
                span_mass(query, key, spans, query_positions=positions)
    monkeypatch.setenv("AVAR_SPAN_MASS", "triton")
    with pytest.raises(ValueError, match="float32, bfloat16 and float16, not torch.float64"):
        span_mass(query.double(), key.double(), spans, query_positions=positions)


@pytest.mark.skipif(DEVICE == "cuda", reason="the other tests compile the kernels")
def test_the_kernels_compile_for_a_gpu(tmp_path):
    """To machine code of an H100, in a process of its own since this one interprets."""
    import os
    import subprocess
    import sys
    from pathlib import Path

    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    worker = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run([sys.executable, worker], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("compiled") == 6
