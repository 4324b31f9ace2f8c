"""Span masses of a model with LoRA adapters (PEFT): those of its eager maps, with adapters on, off and merged."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from avar_rl.attention.families import FAMILIES
from avar_rl.attention.recorder import language_attention_modules, record_span_mass
from avar_rl.attention.roles import query_positions
from tests.numerics.tiny_qwen import LAYERS, eager_masses, make_batch, make_model, spans_of


def adapted(implementation: str, family: str = "qwen2_5_vl"):
    """The miniature with adapters that change its attention a lot; the same for every implementation."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", exclude_modules=".*visual.*")
    network = get_peft_model(make_model(implementation, family), config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def recorded(network, inputs, roles) -> torch.Tensor:
    with torch.no_grad(), record_span_mass(network, spans_of(roles), valid=inputs["attention_mask"].bool()) as record:
        network(**inputs)
    return record.stack()


@pytest.mark.parametrize("family", FAMILIES)
def test_masses_equal_the_eager_maps_with_adapters_on_off_and_merged(family):
    inputs, roles = make_batch("left")
    network = adapted("sdpa", family)
    assert list(language_attention_modules(network)) == list(range(LAYERS))
    on = recorded(network, inputs, roles)
    torch.testing.assert_close(on, eager_masses(adapted("eager", family), inputs, roles), rtol=0, atol=1e-5)
    with network.disable_adapter():
        off = recorded(network, inputs, roles)
    torch.testing.assert_close(off, eager_masses(make_model("eager", family), inputs, roles), rtol=0, atol=1e-5)
    assert float((on - off).abs().max()) > 0.05  # the adapters do change what is looked at
    merged = recorded(network.merge_and_unload(), inputs, roles)
    torch.testing.assert_close(merged, on, rtol=0, atol=1e-5)


def gradients(network, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("inputs_require_grads", [False, True])  # PEFT's own way, and that of our engine
def test_a_loss_on_masses_reaches_the_adapters_and_nothing_else(checkpointing, inputs_require_grads):
    inputs, roles = make_batch("right")
    positions = query_positions(roles, "response")
    eager = adapted("eager").train()
    maps_LBHTT = torch.stack(eager(**inputs, output_attentions=True).attentions)
    masses = torch.einsum("lbhqk,bsk->lbshq", maps_LBHTT, spans_of(roles).float())
    index = positions.clamp(min=0)[None, :, None, None].expand(LAYERS, -1, 2, 4, -1)
    expected = gradients(eager, (masses.gather(-1, index) * (positions >= 0)[:, None, None]).square().sum())

    network = adapted("sdpa").train()
    if checkpointing:
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if not inputs_require_grads:
        network.disable_input_require_grads()
    with record_span_mass(
        network, spans_of(roles), query_positions=positions, valid=inputs["attention_mask"].bool()
    ) as record:
        network(**inputs)
    found = gradients(network, record.stack().square().sum())

    assert found and all("lora_" in name for name in found)
    assert {name.split(".")[6] for name in found} >= {"self_attn", "mlp"}
    for name, gradient in expected.items():
        if name in found or float(gradient.norm()) > 0:
            assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name
