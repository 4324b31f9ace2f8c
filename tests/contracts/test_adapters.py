"""Adapters in verl's FSDP2 engine: float32 over frozen bfloat16, what gradients reach, what a checkpoint keeps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def found(tiny_world, checkpoints):
    """What adapters_worker.py saw: an engine that trains for a step, saves, trains on and loads."""
    command = [sys.executable, str(ROOT / "tests/contracts/adapters_worker.py"), str(tiny_world)]
    command += [str(checkpoints / "out.pt"), f"trainer.default_local_dir={checkpoints}"]
    command += ["model.lora_rank=4", "engine.model_dtype=bf16", "model.enable_gradient_checkpointing=true"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return torch.load(checkpoints / "out.pt", weights_only=False)


def test_adapters_learn_in_float32_over_frozen_weights_in_bfloat16(found):
    types = {"lora_" in name: {dtype for n, dtype in found["types"].items() if ("lora_" in n) == ("lora_" in name)}
             for name in found["types"]}  # fmt: skip
    assert types == {True: {torch.float32}, False: {torch.bfloat16}}
    assert set(found["gradients"].values()) == {torch.float32}


def test_the_guided_loss_reaches_every_adapter_and_no_frozen_weight(found):
    assert found["gradients"].keys() == {name for name in found["types"] if "lora_" in name}
    assert all("visual" not in name for name in found["gradients"])
    assert all(float(tensor.abs().max()) > 0 for name, tensor in found["trained"].items() if "lora_B" in name)


def test_nothing_is_kept_for_a_backward_pass_through_the_frozen_vision_tower(found):
    assert found["tower_needs_grad"] and not any(found["tower_needs_grad"])


def test_masses_change_with_the_adapters_and_are_the_base_models_where_they_are_disabled(found):
    masses = found["masses"]
    for before, trained, disabled in zip(masses["untrained"], masses["trained"], masses["disabled"], strict=True):
        assert torch.equal(before, disabled) and float((trained - before).abs().max()) > 1e-4


def test_a_checkpoint_holds_the_adapter_and_training_goes_on_from_it(found, checkpoints):
    for name, tensor in found["trained"].items():
        assert torch.equal(found["loaded"][name], tensor)
        if "lora_B" in name:
            assert not torch.equal(found["trained further"][name], tensor)
    folder = checkpoints / "global_step_1"
    written = load_file(folder / "lora_adapter" / "adapter_model.safetensors")
    assert {name.replace(".default", "") for name in found["trained"]} == written.keys()
    for name, tensor in found["trained"].items():
        assert torch.equal(written[name.replace(".default", "")], tensor)
    assert not list((folder / "huggingface").glob("*.safetensors"))
