"""Each supported model family: masses and gradients on a random miniature equal those from its eager attention maps."""

import pytest
import torch

from avar_rl.attention import varlen
from avar_rl.attention.families import FAMILIES, require_supported
from avar_rl.attention.recorder import language_attention_modules, record_span_mass
from avar_rl.attention.roles import query_positions
from data_tools.miniature import model as miniature
from tests.numerics import tiny_qwen
from tests.numerics.tiny_qwen import LAYERS, eager_masses, make_batch, make_model, spans_of

varlen.register()


def test_every_family_has_miniatures():
    assert tiny_qwen.FAMILIES == tuple(FAMILIES) == tuple(miniature.MINIATURES)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("implementation", ["sdpa", varlen.NAME])
@pytest.mark.parametrize("family", FAMILIES)
def test_masses_equal_the_eager_maps_and_logits_are_unchanged(family, implementation, padding):
    inputs, roles = make_batch(padding)
    model = make_model(implementation, family)
    assert list(language_attention_modules(model)) == list(range(LAYERS))  # no vision tower
    with torch.no_grad():
        off = model(**inputs).logits
        with record_span_mass(model, spans_of(roles), valid=inputs["attention_mask"].bool()) as record:
            on = model(**inputs).logits
    assert torch.equal(on, off)
    expected = eager_masses(make_model("eager", family), inputs, roles)
    torch.testing.assert_close(record.stack(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", varlen.NAME])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_under_checkpointing_equal_those_through_the_eager_maps(family, implementation):
    inputs, roles = make_batch("right")
    positions = query_positions(roles, "response")
    eager = make_model("eager", family).train()
    maps_LBHTT = torch.stack(eager(**inputs, output_attentions=True).attentions)
    masses = torch.einsum("lbhqk,bsk->lbshq", maps_LBHTT, spans_of(roles).float())
    index = positions.clamp(min=0)[None, :, None, None].expand(LAYERS, -1, 2, 4, -1)
    (masses.gather(-1, index) * (positions >= 0)[:, None, None]).square().sum().backward()

    model = make_model(implementation, family).train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with record_span_mass(
        model, spans_of(roles), query_positions=positions, valid=inputs["attention_mask"].bool()
    ) as record:
        model(**inputs)
    record.stack().square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), eager.parameters(), strict=True):
        if q.grad is not None:
            assert (p.grad - q.grad).norm() <= 1e-4 * q.grad.norm() + 1e-6, name


def test_another_family_is_refused_with_what_to_implement():
    with pytest.raises(
        ValueError, match="'llava' has no support .there is: qwen2_vl, qwen2_5_vl, qwen3_vl.. To add it:"
    ):
        require_supported("llava")
