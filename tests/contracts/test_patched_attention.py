"""Packed batches, (1, nnz), as verl's engine gives them to a model under `use_remove_padding`, in every family.

verl's `apply_monkey_patch` and every function it puts in place run as they are (in Qwen2-VL and Qwen2.5-VL that is the
attention, too). The operation under them is torch's packed attention, as on a GPU without flash-attn. What is expected
is each sequence by itself, in plain transformers, from eager attention maps.
"""

import functools
import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from transformers import modeling_flash_attention_utils as flash_utils  # noqa: E402
from transformers.integrations import flash_attention  # noqa: E402
from verl.models.transformers import qwen2_vl  # noqa: E402
from verl.models.transformers.monkey_patch import apply_monkey_patch  # noqa: E402

from avar_rl.attention import varlen  # noqa: E402
from avar_rl.attention.families import FAMILIES  # noqa: E402
from avar_rl.attention.recorder import record_span_mass  # noqa: E402
from avar_rl.attention.roles import query_positions  # noqa: E402
from avar_rl.attention.span_mass import solve  # noqa: E402
from avar_rl.verl_plugin import register  # noqa: E402, F401 (as verl imports it)
from avar_rl.verl_plugin.compat import patched_attention  # noqa: E402
from tests.numerics.tiny_qwen import (  # noqa: E402
    LAYERS,
    alone,
    make_model,
    make_sequence,
    packed,
    spans_of,
    three_sequences,
)

PREFIX = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
CASES = [(family, varlen.NAME) for family in FAMILIES] + [("qwen2_5_vl", "sdpa")]


@functools.cache
def expected(family: str) -> dict[str, torch.Tensor]:
    """Logits, masses (L, 1, S, H, nnz) and gradients from whole maps, one sequence at a time."""
    model = make_model("eager", family).train()
    logits, masses, logs = [], [], []
    for one, roles in three_sequences():
        out = model(**alone(one), output_attentions=True)
        maps_LHTT = torch.stack(out.attentions)[:, 0]
        masses.append(torch.einsum("lhqk,sk->lshq", maps_LHTT, spans_of(roles[None])[0].float()))
        logs.append(masses[-1][..., query_positions(roles[None], "user")[0]].log())
        logits.append(out.logits[0])
    loss(torch.cat(logits), torch.cat(logs, -1)).backward()
    return {
        "logits": torch.cat(logits).detach()[None],
        "masses": torch.cat(masses, -1).detach()[:, None],
        **{name: p.grad for name, p in model.named_parameters() if p.grad is not None},
    }


def loss(logits: torch.Tensor, log_masses: torch.Tensor) -> torch.Tensor:
    return logits.square().mean() - log_masses.mean()


def undo(monkeypatch) -> None:
    """Restores after the test what apply_monkey_patch replaces."""
    for family, prefix in PREFIX.items():
        modeling = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
        for name in ("ForConditionalGeneration", "Model", "Attention", "TextModel", "TextAttention"):
            if cls := getattr(modeling, prefix + name, None):
                monkeypatch.setattr(cls, "forward", cls.forward)
    tower = importlib.import_module("transformers.models.qwen3_vl.modeling_qwen3_vl").Qwen3VLVisionModel
    monkeypatch.setattr(tower, "fast_pos_embed_interpolate", tower.fast_pos_embed_interpolate)
    monkeypatch.setattr(flash_attention, "_flash_attention_forward", flash_attention._flash_attention_forward)


@pytest.fixture(params=CASES, ids="-".join)
def case(request, monkeypatch):
    """A model whose classes verl patched for remove_padding, and what plain transformers gives."""
    family, implementation = request.param
    reference = expected(family)  # before the patch
    undo(monkeypatch)
    model = make_model(implementation, family)
    apply_monkey_patch(model, use_remove_padding=True)
    return model, reference


class Operations(TorchDispatchMode):
    """Notes the attention operations that run."""

    def __enter__(self):
        self.seen = []
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "attention" in func.name() or "attn" in func.name():
            self.seen.append(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


def test_packed_equals_alone_with_recording_on_and_off(case):
    model, reference = case
    inputs, roles, cu_seqlens = packed(model, three_sequences())
    with torch.no_grad():
        off = model(**inputs).logits
        with record_span_mass(model, spans_of(roles), cu_seqlens=cu_seqlens) as record:
            on = model(**inputs).logits
    assert torch.equal(on, off)
    torch.testing.assert_close(off, reference["logits"], rtol=0, atol=1e-4)  # logits of up to 10; measured: 2e-5
    torch.testing.assert_close(record.stack(), reference["masses"], rtol=0, atol=1e-5)


def test_wanted_rows(case):
    model, reference = case
    inputs, roles, cu_seqlens = packed(model, three_sequences())
    positions = query_positions(roles, "response", cu_seqlens=cu_seqlens)
    with (
        torch.no_grad(),
        record_span_mass(model, spans_of(roles), query_positions=positions, cu_seqlens=cu_seqlens) as record,
    ):
        model(**inputs)
    torch.testing.assert_close(record.stack(), reference["masses"][..., positions[0]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_equal_those_of_separate_sequences(case, checkpointing):
    model, reference = case
    inputs, roles, cu_seqlens = packed(model, three_sequences())
    positions = query_positions(roles, "user", cu_seqlens=cu_seqlens)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with record_span_mass(model, spans_of(roles), query_positions=positions, cu_seqlens=cu_seqlens) as record:
        logits = model(**inputs).logits
    loss(logits, record.stack().log()).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, grad in found.items():
        assert (grad - reference[name]).norm() <= 1e-4 * reference[name].norm() + 1e-6, name
    assert any("visual" in name for name in found) and found.keys() <= reference.keys()


def test_the_kernels_lse_is_used(case, monkeypatch):
    model, _ = case
    seen = []

    def spy(*args, lse, **kwargs):
        seen.append(lse.shape)
        return solve(*args, lse=lse, **kwargs)

    monkeypatch.setattr("avar_rl.attention.recorder.solve", spy)
    inputs, roles, cu_seqlens = packed(model, three_sequences())
    with torch.no_grad(), record_span_mass(model, spans_of(roles), cu_seqlens=cu_seqlens):
        model(**inputs)
    assert seen == [(1, 4, 22 + 30 + 27)] * LAYERS


def test_one_operation_a_layer_in_both_towers(case):
    model, _ = case
    inputs, _, _ = packed(model, three_sequences())
    with torch.no_grad(), Operations() as operations:
        model(**inputs)
    language = ["torch_attn::_varlen_attn"] * LAYERS
    blocks = len(model.model.visual.blocks)
    if model.config._attn_implementation == "sdpa":  # one call an image
        tower = ["aten::_scaled_dot_product_flash_attention_for_cpu"] * 4 * blocks
    else:
        tower = ["torch_attn::_varlen_attn"] * blocks
    assert operations.seen == tower + language


LENGTHS = [(22,), (1,), (1, 22), (22, 1), (1, 1, 27), (1, 30, 1, 1), (1, 1)]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_sequences_of_one_token_and_single_ones_see_only_themselves(case, lengths):
    """verl alone takes sequences of one token for the beginning of what follows."""
    model, _ = case
    sequences = [make_sequence(n, int(n > 1), seed) for seed, n in enumerate(lengths)]
    inputs, roles, cu_seqlens = packed(model, sequences)
    with torch.no_grad(), record_span_mass(model, spans_of(roles), cu_seqlens=cu_seqlens) as record:
        together = model(**inputs).logits
    for start, (one, own_roles) in zip(cu_seqlens.tolist(), sequences, strict=False):
        part = slice(start, start + len(own_roles))
        inputs, _, _ = packed(model, [(one, own_roles)])
        with torch.no_grad(), record_span_mass(model, spans_of(own_roles[None])) as own:
            logits = model(**inputs).logits
        torch.testing.assert_close(together[:, part], logits, rtol=0, atol=1e-4)
        torch.testing.assert_close(record.stack()[..., part], own.stack(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_verls_fused_kernels_give_the_same_log_probabilities_and_are_recorded(family, monkeypatch):
    """With them the model returns log-probabilities and no logits."""
    reference = expected(family)
    undo(monkeypatch)
    model = make_model(varlen.NAME, family)
    apply_monkey_patch(model, use_fused_kernels=True, fused_kernels_backend="torch")
    inputs, roles, cu_seqlens = packed(model, three_sequences())
    labels = inputs["input_ids"].roll(-1, dims=1)
    fused = dict(temperature=0.7, return_dict=True, shift_labels=labels)  # as verl's engine calls it
    with record_span_mass(model, spans_of(roles), cu_seqlens=cu_seqlens) as record:
        output = model(**inputs, **fused)
    assert output.logits is None
    log_probs = (reference["logits"] / 0.7).log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    torch.testing.assert_close(output.log_probs, log_probs, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(record.stack(), reference["masses"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("on_cuda", "flash_attn_is_there", "implementation", "from_torch"),
    [
        (True, True, "flash_attention_2", False),
        (True, True, "sdpa", False),
        (True, True, varlen.NAME, True),
        (True, False, "sdpa", True),
        (False, True, "sdpa", True),
    ],
)
def test_when_torch_takes_the_place_of_flash_attn(on_cuda, flash_attn_is_there, implementation, from_torch):
    module: Any = SimpleNamespace(config=SimpleNamespace(_attn_implementation=implementation))
    query: Any = SimpleNamespace(is_cuda=on_cuda)
    patched_attention._RUNNING.append(patched_attention._Running(module, None))
    try:
        assert patched_attention._from_torch(query, flash_attn_is_there or None) is from_torch
    finally:
        patched_attention._RUNNING.pop()


def test_transformers_hands_out_our_functions_under_our_name():
    functions, arguments_of = flash_utils.lazy_import_flash_attention(varlen.NAME)
    assert functions[:2] == (varlen.flash_attn_func, varlen.flash_attn_varlen_func)
    lengths = dict(max_seqlen_q=3, max_seqlen_k=3)
    given = arguments_of(query_length=3, key_length=3, is_causal=True, softmax_scale=0.5, **lengths)
    assert given == dict(causal=True, softmax_scale=0.5, dropout_p=0.0, deterministic=False) | lengths


def test_install_twice_wraps_once():
    before = qwen2_vl.flash_attn_varlen_func
    patched_attention.install()
    assert qwen2_vl.flash_attn_varlen_func is before
