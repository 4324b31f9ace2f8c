"""Each supported model family: masses and gradients on a random miniature equal those from its eager attention maps."""

import pytest
import torch

from avar_rl.attention import varlen
from avar_rl.attention.families import FAMILIES, require_supported
from avar_rl.attention.recorder import language_attention_modules, record_span_mass
from avar_rl.attention.roles import Role, query_positions, role_spans
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


@pytest.mark.parametrize("family", FAMILIES)
def test_a_marked_region_has_the_mass_of_its_tokens_and_the_image_keeps_its_own(family):
    inputs, roles = make_batch("left")
    marked = roles.clone()
    pads = (roles == Role.IMAGE).cumsum(1)
    marked[(roles == Role.IMAGE) & ((pads == 2) | (pads == 3))] = Role.REGION  # of the first image of each row
    model, valid = make_model("sdpa", family), inputs["attention_mask"].bool()

    def masses(spans):
        with torch.no_grad(), record_span_mass(model, spans, valid=valid) as record:
            model(**inputs)
        return record.stack()

    image, system, region = masses(role_spans(marked, [Role.IMAGE, Role.SYSTEM, Role.REGION])).unbind(2)
    assert torch.equal(masses(spans_of(marked)), masses(spans_of(roles)))
    with torch.no_grad():
        maps_LBHTT = torch.stack(make_model("eager", family)(**inputs, output_attentions=True).attentions)
    expected = torch.einsum("lbhqk,bk->lbhq", maps_LBHTT, (marked == Role.REGION).float()) * valid[None, :, None]
    torch.testing.assert_close(region, expected, rtol=0, atol=1e-5)
    expected = eager_masses(make_model("eager", family), inputs, roles)
    torch.testing.assert_close(torch.stack([image, system], 2), expected, rtol=0, atol=1e-5)
    assert (region <= image + 1e-6).all() and 0.01 < region[image > 0].mean() < image[image > 0].mean()


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
