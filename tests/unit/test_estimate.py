"""Estimates against hand-worked figures, the published sizes of four models, and what torch counts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avar_rl import estimate
from avar_rl.estimate import GB, RolloutEngine, Training
from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from avar_rl.verl_plugin.recipe_check.model_sizes import adapter_parameters, model_sizes  # noqa: E402

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
PUBLISHED = {  # parameters, from the model cards' safetensors
    "Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen3-VL-8B-Instruct": 8_767_123_696,
}


@pytest.fixture(scope="module")
def seven():
    return model_sizes(str(CONFIGS / "Qwen2.5-VL-7B-Instruct"))[0]


def sizes_of(parts):
    return {part.name: part.size / GB for part in parts}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name):
    sizes, _ = model_sizes(str(CONFIGS / name))
    assert sizes.parameters == PUBLISHED[name]
    assert sizes.tied == (name in ("Qwen2.5-VL-3B-Instruct", "Qwen3-VL-4B-Instruct"))
    assert sizes.qk_norm == name.startswith("Qwen3")


def test_seven_billion_on_eight_cards_as_worked_by_hand(seven):
    parts = sizes_of(estimate.training_parts(seven, Training(gpus=8, tokens=16384)))
    states = parts["parameters"] + parts["gradients"] + parts["optimizer (Adam)"]
    assert states == pytest.approx(8.292166656 * 16 / 8)  # 16.6
    assert parts["gather and reduce"] == pytest.approx(6, abs=0.5)
    assert parts["activations"] == pytest.approx(6, abs=0.5)
    assert parts["recomputed layer"] == pytest.approx(5, abs=0.5)
    assert parts["logits"] == pytest.approx(16384 * 152064 * 2 / 1e9)  # 5.0
    assert sum(parts.values()) == pytest.approx(40, abs=2)
    fused = sizes_of(estimate.training_parts(seven, Training(gpus=8, tokens=16384, fused=True)))
    # 512 tokens x 152,064 words x 12 B, and the gradient of the output matrix, 152,064 x 3,584 x 2 B
    assert fused["logits"] == pytest.approx(0.934 + 1.090, abs=0.001)
    # the output matrix belongs to the root, 152,064 x 3,584 x 2 B more of parameters; the root is now the largest unit,
    # and the gradients of its other weights count, too
    more = 1.089922 + seven.root * 6 / 1e9
    assert fused["gather and reduce"] - parts["gather and reduce"] == pytest.approx(more, abs=0.001)


def test_the_rollout_of_seven_billion(seven):
    run = Training(gpus=8, tokens=16384)
    rollout = RolloutEngine(share=0.6, tensor_parallel=1, length=4096, host_parameters=True, host_optimizer=True)
    parts = estimate.rollout_parts(seven, rollout, run, 80 * GB)
    assert estimate.total(parts[:3]) == pytest.approx(48 * GB)  # weights, KV cache, process: the engine's share
    # a token: key and value, 28 layers, 4 heads of 128, bf16
    assert estimate.key_value_bytes(seven, rollout) == 2 * 28 * 4 * 128 * 2
    assert estimate.key_value_bytes(seven, replace(rollout, tensor_parallel=2)) == 28 * 4 * 128 * 2
    host = sizes_of(estimate.host_parts(seven, run, nodes=1, rollout=rollout, pixels=39e9))
    assert host["states on the host"] == pytest.approx(8.292166656 * 12)  # 100
    kept = replace(rollout, host_parameters=False, host_optimizer=False)
    resident = sizes_of(estimate.rollout_parts(seven, kept, run, 80 * GB))["actor meanwhile"]
    assert resident == pytest.approx(8.292166656 * 16 / 8)


def test_pixels_of_1024_image_tokens(seven):
    # 4 patches a token, 3 x 2 x 14 x 14 numbers a patch, 4 B each: 19.3 MB; 39 GB for 2,048 responses
    assert estimate.pixel_bytes(seven, 1024) == 1024 * 4 * 1176 * 4 == 19_267_584
    assert estimate.image_tokens(1024 * 28 * 28, seven) == 1024
    assert estimate.image_tokens(1024 * 28 * 28 - 1, seven) == 1023


def test_states_on_the_host_and_adapters(seven):
    run = Training(gpus=1, tokens=8192, host_states=True)
    parts = sizes_of(estimate.training_parts(seven, run))
    assert parts["parameters"] == parts["gradients"] == parts["optimizer (Adam)"] == 0
    assert sizes_of(estimate.host_parts(seven, run, nodes=1))["states on the host"] == pytest.approx(8.292166656 * 16)
    lora = replace(seven, adapters=64 * seven.rank_one)
    parts = sizes_of(estimate.training_parts(lora, Training(gpus=1, tokens=8192, dtype=estimate.BF16)))
    assert parts["parameters"] == pytest.approx(8.292166656 * 2 + 0.161480704 * 4)
    assert parts["gradients"] == pytest.approx(0.161480704 * 4)  # as fp32
    assert parts["optimizer (Adam)"] == pytest.approx(0.161480704 * 8)


def test_adapters_are_counted_as_peft_makes_them(tiny_world):
    from peft import LoraConfig, get_peft_model

    for target, exclude in [("all-linear", ".*visual.*"), (["q_proj", "down_proj"], None), (".*layers.*up_proj", None)]:
        _, model = model_sizes(str(tiny_world / "base"))
        expected = adapter_parameters(model, 8, target, exclude)
        adapted = get_peft_model(model, LoraConfig(r=8, target_modules=target, exclude_modules=exclude))
        assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == expected > 0


@pytest.mark.parametrize(("hidden", "intermediate", "heads", "groups"), [(256, 512, 2, 1), (256, 1024, 4, 2)])
@pytest.mark.parametrize("family", ["Qwen2.5-VL-3B-Instruct", "Qwen3-VL-4B-Instruct"])
def test_what_a_layer_keeps_is_what_torch_saves(family, hidden, intermediate, heads, groups):
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(CONFIGS / family)
    text = config.get_text_config()
    text.update({"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": 1, "vocab_size": 64})
    head_size = 128 if "Qwen3" in family else hidden // heads
    text.update({"num_attention_heads": heads, "num_key_value_heads": groups, "head_dim": head_size})
    config.vision_config.depth = 1
    if "Qwen3" not in family:
        sections = {"mrope_section": [head_size // 8, head_size // 8 * 3 // 2, head_size // 8 * 3 // 2]}
        text.rope_parameters = {**text.rope_parameters, **sections}
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    saved = saved_bytes(model.model.language_model.to_empty(device="cpu").to(torch.bfloat16), hidden, tokens=128)
    sizes = replace(
        model_sizes(str(CONFIGS / family))[0],
        hidden=hidden, intermediate=intermediate, attention=heads * head_size, key_value=groups * head_size,
    )  # fmt: skip
    assert saved / 128 == pytest.approx(estimate.layer_saved(sizes), rel=0.03)


def saved_bytes(language_model, hidden: int, tokens: int) -> int:
    """Bytes of the distinct tensors that autograd keeps of the first layer, weights and rotations aside."""
    positions = torch.arange(tokens)[None, None].expand(3, 1, tokens)
    inputs = torch.randn(1, tokens, hidden, dtype=torch.bfloat16, requires_grad=True)
    rotations = language_model.rotary_emb(inputs, positions)
    known = {tensor.untyped_storage().data_ptr() for tensor in (*language_model.parameters(), *rotations)}
    kept = {}  # holds the tensors, so that no address is used twice

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        language_model.layers[0](inputs, attention_mask=None, position_ids=positions, position_embeddings=rotations)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
