"""The recorder on a real (tiny, random) Qwen2.5-VL with images: parity with eager maps, unchanged logits, gradients."""

import gc
import weakref

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from avar_rl.attention.recorder import SpanMassRecorder, language_attention_modules, record_span_mass
from avar_rl.attention.roles import query_positions
from avar_rl.attention.span_mass import solve
from avar_rl.guidance import GuidanceConfig, guidance_terms
from tests.numerics.tiny_qwen import LAYERS, eager_masses, make_batch, make_batch_of_one, make_model, spans_of


def run(model, inputs, roles, **kwargs):
    with record_span_mass(model, spans_of(roles), valid=inputs["attention_mask"].bool(), **kwargs) as record:
        output = model(**inputs)
    return record, output


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_masses_equal_the_eager_maps(implementation, padding):
    inputs, roles = make_batch(padding)
    expected = eager_masses(make_model("eager"), inputs, roles)
    with torch.no_grad():
        record, _ = run(make_model(implementation), inputs, roles)
    assert record.stack().shape == (LAYERS, 3, 2, 4, 30)
    torch.testing.assert_close(record.stack(), expected, rtol=0, atol=1e-5)


def test_masses_without_the_kernels_lse_equal_the_eager_maps():
    # Other kernels than torch's flash attention for CPUs do not return it.
    inputs, roles = make_batch()
    expected = eager_masses(make_model("eager"), inputs, roles)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.no_grad():
        record, _ = run(make_model("sdpa"), inputs, roles)
    torch.testing.assert_close(record.stack(), expected, rtol=0, atol=1e-5)


def test_wanted_rows_and_layers_only():
    inputs, roles = make_batch("left")
    positions = query_positions(roles, "response")
    expected = eager_masses(make_model("eager"), inputs, roles)
    with torch.no_grad():
        record, _ = run(make_model("sdpa"), inputs, roles, query_positions=positions, layers=[2, 0])
    assert record.layers == (0, 2)
    index = positions.clamp(min=0)[None, :, None, None].expand(2, -1, 2, 4, -1)
    wanted = expected[[0, 2]].gather(-1, index) * (positions >= 0)[:, None, None]
    torch.testing.assert_close(record.stack(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("padding", [None, "left"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_logits_are_bit_identical_with_recording_on_and_off(implementation, padding, grad, monkeypatch):
    monkeypatch.setattr(ALL_ATTENTION_FUNCTIONS, "_local_mapping", {})  # "off" runs without even the inert wrapper
    inputs, roles = make_batch(padding) if padding else make_batch_of_one()
    model = make_model(implementation)
    with torch.set_grad_enabled(grad):
        off = model(**inputs).logits
        _, on = run(model, inputs, roles)
        inert = model(**inputs).logits
    assert torch.equal(on.logits, off) and torch.equal(inert, off)


def gradients(model, micro_batches, *, backward="after") -> torch.Tensor:
    """Of language-model and guided loss over micro-batches; backward "after" each recording, "inside" it, or "last"."""
    model.train()
    model.zero_grad()
    losses = []
    for inputs, roles in micro_batches:
        positions = query_positions(roles, "user")
        with record_span_mass(
            model, spans_of(roles), query_positions=positions, valid=inputs["attention_mask"].bool()
        ) as record:
            labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
            loss = model(**inputs, labels=labels).loss
            terms = guidance_terms(record.stack(), positions, roles, GuidanceConfig())
            losses.append(loss + terms.enhance_N.sum() + terms.suppress_N.sum())
            if backward == "inside":
                losses.pop().backward()
        if backward == "after":
            losses.pop().backward()
    if losses:
        torch.stack(losses).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def checkpointing(model, use_reentrant: bool):
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    return model


@pytest.mark.parametrize("backward", ["after", "inside", "last"])
def test_gradients_under_checkpointing_and_micro_batches(backward):
    batches = [make_batch("left"), make_batch("right")]
    plain = gradients(make_model("sdpa"), batches)
    checkpointed = gradients(checkpointing(make_model("sdpa"), False), batches, backward=backward)
    torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_checkpointing_drops_query_and_key_until_the_backward_pass(checkpointed, monkeypatch):
    kept = []

    def spy(problem, query, key, **kwargs):
        kept.extend(weakref.ref(x.untyped_storage()) for x in (query, key))
        return solve(problem, query, key, **kwargs)

    monkeypatch.setattr("avar_rl.attention.recorder.solve", spy)
    inputs, roles = make_batch()
    model = make_model("sdpa").train()
    if checkpointed:
        checkpointing(model, False)
    record, output = run(model, inputs, roles)
    gc.collect()
    alive = [reference() is not None for reference in kept]
    assert len(kept) == 2 * LAYERS and any(alive) is not checkpointed
    kept.clear()
    (record.stack().sum() + output.logits.sum()).backward()
    assert len(kept) == (2 * LAYERS if checkpointed else 0)  # replayed once a layer


def test_a_graph_without_backward_pass_is_freed():
    inputs, roles = make_batch()
    record, output = run(checkpointing(make_model("sdpa").train(), False), inputs, roles)
    mass = weakref.ref(record.masses[0])
    del record, output
    gc.collect()
    assert mass() is None


def test_a_loss_of_the_masses_alone_under_checkpointing():
    """Nothing but what span mass saved asks for the recomputation then."""
    inputs, roles = make_batch()
    models = [make_model("sdpa").train(), checkpointing(make_model("sdpa").train(), False)]
    for model in models:
        record, _ = run(model, inputs, roles, query_positions=query_positions(roles, "response"))
        record.stack().square().sum().backward()
    for (name, plain), checkpointed in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert (plain.grad is None) == (checkpointed.grad is None), name
        if plain.grad is not None:
            torch.testing.assert_close(checkpointed.grad, plain.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_a_frozen_vision_tower_changes_no_other_gradient():
    inputs, roles = make_batch()
    whole, frozen = make_model("sdpa").train(), make_model("sdpa").train()
    frozen.model.visual.requires_grad_(False)
    for model in (whole, frozen):
        record, output = run(checkpointing(model, False), inputs, roles, query_positions=query_positions(roles, "user"))
        (output.logits.square().mean() + record.stack().square().sum()).backward()
    assert all(p.grad is None for p in frozen.model.visual.parameters())
    for (name, p), q in zip(whole.named_parameters(), frozen.parameters(), strict=True):
        if "visual" not in name and p.grad is not None:
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_gradients_equal_those_through_the_eager_maps():
    inputs, roles = make_batch(
        "right"
    )  # under left padding the last padding query predicts a token, each kernel its own
    positions = query_positions(roles, "user")
    model = make_model("eager").train()
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    output = model(**inputs, labels=labels, output_attentions=True)
    masses = torch.einsum("lbhqk,bsk->lbshq", torch.stack(output.attentions), spans_of(roles).float())
    index = positions.clamp(min=0)[None, :, None, None].expand(LAYERS, -1, 2, 4, -1)
    masses = masses.gather(-1, index) * (positions >= 0)[:, None, None]
    terms = guidance_terms(masses, positions, roles, GuidanceConfig())
    (output.loss + terms.enhance_N.sum() + terms.suppress_N.sum()).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    recorded = gradients(make_model("sdpa"), [(inputs, roles)])
    # measured: 3e-5 in one of 157,248 elements, below 1e-5 elsewhere
    torch.testing.assert_close(recorded, expected, rtol=1e-4, atol=3e-5)


def test_reentrant_checkpointing_is_refused():
    with pytest.raises(ValueError, match='layer 0 recorded masses without gradients.*"use_reentrant": False'):
        gradients(checkpointing(make_model("sdpa"), True), [make_batch()])


def test_reentrant_checkpointing_is_fine_without_gradients():
    inputs, roles = make_batch()
    model = checkpointing(make_model("sdpa"), True).train()
    with torch.no_grad():
        record, _ = run(model, inputs, roles)
    assert not record.stack().requires_grad


def test_a_layer_that_does_not_exist_is_refused():
    inputs, roles = make_batch()
    with pytest.raises(ValueError, match=r"cannot record layers \[7\]: the model has layers \[0, 1, 2\]"):
        run(make_model("sdpa"), inputs, roles, layers=[1, 7])


def test_recording_nothing_is_refused():
    _, roles = make_batch()
    model = make_model("sdpa")
    nothing = pytest.raises(ValueError, match=r"recording yielded nothing for layers \[0, 1, 2\]")
    with nothing, record_span_mass(model, spans_of(roles)):
        pass  # no forward pass
    with record_span_mass(model, spans_of(roles)) as record:  # the recorder before is gone
        with pytest.raises(ValueError, match="recording yielded nothing"):
            record.stack()
        model(**make_batch()[0])


def test_an_unregistered_attention_path_is_refused(monkeypatch):
    inputs, roles = make_batch()
    model = make_model("sdpa")
    attention = type(language_attention_modules(model)[0])

    def forward(self, hidden_states, **kwargs):  # attends without the registry
        return self.o_proj(hidden_states), None

    monkeypatch.setattr(attention, "forward", forward)
    with pytest.raises(ValueError, match="its attention function is not one that records"):
        run(model, inputs, roles)


def test_two_forward_passes_in_one_recording_are_refused():
    inputs, roles = make_batch()
    model = make_model("sdpa")
    with pytest.raises(ValueError, match="ran twice in one recording"), record_span_mass(model, spans_of(roles)):
        model(**inputs)
        model(**inputs)


def test_a_key_cache_is_refused():
    inputs, roles = make_batch()
    model = make_model("sdpa")
    cache = model(**inputs, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="no key cache"), record_span_mass(model, spans_of(roles)[..., :1]):
        model(input_ids=inputs["input_ids"][:, -1:], past_key_values=cache)


def test_an_error_in_the_block_is_the_error_seen_and_ends_the_recording():
    inputs, roles = make_batch()
    model = make_model("sdpa")
    with pytest.raises(KeyError, match="mine"), record_span_mass(model, spans_of(roles)):
        raise KeyError("mine")
    run(model, inputs, roles)


def test_recorder_without_a_block():
    inputs, roles = make_batch()
    model = make_model("sdpa")
    recorder = SpanMassRecorder(model)
    with torch.no_grad():
        recorder.start(spans_of(roles), layers=[1])
        with pytest.raises(ValueError, match="already on"):
            recorder.start(spans_of(roles))
        with pytest.raises(ValueError, match=r"layers \[1\] are being recorded by another recorder"):
            SpanMassRecorder(model).start(spans_of(roles))
        model(**inputs)
        record = recorder.finish()
        assert list(record.masses) == [1] and not recorder.recording
        model(**inputs)  # not recorded any more
        with pytest.raises(ValueError, match="no recording is on"):
            recorder.finish()


def test_the_vision_tower_is_never_recorded():
    modules = language_attention_modules(make_model("sdpa"))
    assert list(modules) == [0, 1, 2]
    assert {type(module).__name__ for module in modules.values()} == {"Qwen2_5_VLAttention"}


def test_a_model_without_a_decoder_is_refused():
    with pytest.raises(ValueError, match="no self-attention layers found in the language model of Linear"):
        SpanMassRecorder(torch.nn.Linear(2, 2))


def test_the_cpu_kernels_lse_is_used(monkeypatch):
    # Without it the numbers are the same but recording all response positions costs several times more.
    seen = []

    def spy(*args, lse, **kwargs):
        seen.append(lse)
        return solve(*args, lse=lse, **kwargs)

    monkeypatch.setattr("avar_rl.attention.recorder.solve", spy)
    inputs, roles = make_batch()
    run(make_model("sdpa"), inputs, roles)
    assert [lse.shape for lse in seen] == [(3, 4, 30)] * LAYERS
