"""Recording on verl's own patched Qwen2.5-VL path (use_remove_padding), packed (1, nnz).

verl's `apply_monkey_patch` and every function it puts in place run as they are; only the flash-attention kernel, which
needs a GPU and half precision, is `cpu_attention`.
"""

import pytest
import torch

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from transformers.integrations import flash_attention  # noqa: E402
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen2_5  # noqa: E402
from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen2  # noqa: E402
from verl.models.transformers import qwen2_vl  # noqa: E402
from verl.models.transformers.monkey_patch import apply_monkey_patch  # noqa: E402

from avar_rl.attention.recorder import record_span_mass  # noqa: E402
from avar_rl.attention.roles import query_positions  # noqa: E402
from avar_rl.attention.span_mass import span_mass  # noqa: E402
from avar_rl.verl_plugin import register  # noqa: E402, F401 (as verl imports it)
from avar_rl.verl_plugin.compat import patched_attention  # noqa: E402 (as verl imports it)
from tests.numerics.tiny_qwen import (  # noqa: E402
    IMAGE_PAD,
    LAYERS,
    eager_masses,
    make_batch,
    make_model,
    make_sequence,
    pack,
    spans_of,
)


@pytest.fixture
def patched_model(monkeypatch):
    """A model whose classes verl patched for remove_padding, undone after the test."""
    for modeling, prefix in ((qwen2_5, "Qwen2_5_VL"), (qwen2, "Qwen2VL")):
        for name in ("ForConditionalGeneration", "Model", "Attention"):
            cls = getattr(modeling, prefix + name)
            monkeypatch.setattr(cls, "forward", cls.forward)
    monkeypatch.setattr(flash_attention, "_flash_attention_forward", flash_attention._flash_attention_forward)
    model = make_model("sdpa")
    apply_monkey_patch(model, use_remove_padding=True)
    return model


@pytest.fixture
def eager():
    """(L, 1, S, H, nnz): the masses of every sequence, from its eager map, laid end to end. Made before any patch."""
    inputs, roles = make_batch("right")
    masses_LBSHT = eager_masses(make_model("eager"), inputs, roles)
    lengths = inputs["attention_mask"].sum(1).tolist()
    return torch.cat([masses_LBSHT[:, i, ..., :n] for i, n in enumerate(lengths)], dim=-1)[:, None]


def test_masses_equal_the_eager_maps_and_logits_are_unchanged(eager, patched_model):
    inputs, roles, cu_seqlens = pack(patched_model)
    with torch.no_grad():
        off = patched_model(**inputs).logits
        with record_span_mass(patched_model, spans_of(roles), cu_seqlens=cu_seqlens) as record:
            on = patched_model(**inputs).logits
    assert torch.equal(on, off)
    torch.testing.assert_close(record.stack(), eager, rtol=0, atol=1e-5)


def test_wanted_rows(eager, patched_model):
    inputs, roles, cu_seqlens = pack(patched_model)
    positions = query_positions(roles, "response", cu_seqlens=cu_seqlens)
    with (
        torch.no_grad(),
        record_span_mass(patched_model, spans_of(roles), query_positions=positions, cu_seqlens=cu_seqlens) as record,
    ):
        patched_model(**inputs)
    torch.testing.assert_close(record.stack(), eager[..., positions[0]], rtol=0, atol=1e-5)


def gradients(model, checkpointing: bool) -> torch.Tensor:
    inputs, roles, cu_seqlens = pack(model)
    positions = query_positions(roles, "user", cu_seqlens=cu_seqlens)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with record_span_mass(model, spans_of(roles), query_positions=positions, cu_seqlens=cu_seqlens) as record:
        loss = model(**inputs).logits.square().mean()
    (loss - record.stack().log().mean()).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_gradients_with_checkpointing_equal_those_without_and_those_of_separate_sequences(request):
    # Separate sequences, unpatched, sdpa: mean over all positions of all sequences, as the packed batch has them.
    model = make_model("sdpa").train()
    logits, logs = [], []
    for seed, (length, images) in enumerate([(22, 1), (30, 2), (27, 1)], start=1):
        one, roles = make_sequence(length, images, seed)
        ids, roles = one["input_ids"][None], roles[None]
        with record_span_mass(model, spans_of(roles), query_positions=query_positions(roles, "user")) as record:
            out = model(**{**one, "input_ids": ids}, mm_token_type_ids=(ids == IMAGE_PAD).long())
        logits.append(out.logits)
        logs.append(record.stack().log())
    (torch.cat(logits, 1).square().mean() - torch.cat(logs, -1).mean()).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    patched = request.getfixturevalue("patched_model")
    plain = gradients(patched, checkpointing=False)
    patched.zero_grad()
    checkpointed = gradients(patched, checkpointing=True)
    torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(plain, expected, rtol=1e-3, atol=1e-5)


def test_the_kernels_lse_is_used(patched_model, monkeypatch):
    seen = []

    def spy(*args, lse, **kwargs):
        seen.append(lse.shape)
        return span_mass(*args, lse=lse, **kwargs)

    monkeypatch.setattr("avar_rl.attention.recorder.span_mass", spy)
    inputs, roles, cu_seqlens = pack(patched_model)
    with torch.no_grad(), record_span_mass(patched_model, spans_of(roles), cu_seqlens=cu_seqlens):
        patched_model(**inputs)
    assert seen == [(1, 4, 22 + 30 + 27)] * LAYERS


def test_one_packed_sequence(eager, patched_model):
    """verl sends it to transformers' function instead."""
    inputs, roles, _ = pack(patched_model)
    positions = inputs["position_ids"][..., :22]
    one = inputs | {"input_ids": inputs["input_ids"][:, :22], "position_ids": positions}
    one |= {"pixel_values": inputs["pixel_values"][:16], "image_grid_thw": inputs["image_grid_thw"][:1]}
    with torch.no_grad(), record_span_mass(patched_model, spans_of(roles)[..., :22]) as record:
        patched_model(**one)
    torch.testing.assert_close(record.stack(), eager[..., :22], rtol=0, atol=1e-5)


def test_install_twice_wraps_once():
    before = qwen2_vl.flash_attn_varlen_func
    patched_attention.install()
    assert qwen2_vl.flash_attn_varlen_func is before
