"""LoRA adapters as files: what training writes into a checkpoint, and how export puts it into the model's weights.

An adapter is a directory in PEFT's own format, which PEFT and vLLM load over the model that it was trained on, and a
third file that tells which model that was: merged into any other, the weights would be of the right shapes and wrong.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.files import replacing, write_json

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor
    from transformers import PreTrainedModel

ADAPTER_FOLDER = "lora_adapter"  # in the folder of a checkpoint, where verl's own tools look for one, too
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
TRAINED_OVER = "trained_over.json"


def fingerprint(model: Path) -> str:
    """A digest of a model's weights that tells models apart and costs little on any size.

    It covers the name, type, shape and first row of every tensor, whatever files they are spread over.

    Args:
        model: a directory with weights as safetensors.

    Raises:
        ValueError: there are none.
    """
    import torch
    from safetensors import safe_open

    described: dict[str, bytes] = {}
    for file in model.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():
                shape = weights.get_slice(name).get_shape()
                row = weights.get_slice(name)[:1] if shape else weights.get_tensor(name)[None]
                raw = row.contiguous().view(torch.uint8).numpy().tobytes()
                described[name] = f"{name} {row.dtype} {shape} ".encode() + raw
    if not described:
        raise ValueError(f"{model} has no weights as *.safetensors, which adapters (model.lora_rank) need")
    return hashlib.sha256(b"".join(described[name] for name in sorted(described))).hexdigest()


def write_adapter(
    folder: Path, weights: Mapping[str, Tensor], config: PeftConfig, *, base: str, base_fingerprint: str
) -> None:
    """Writes an adapter, whole or not at all.

    Args:
        folder: the directory to write; one that is there is replaced.
        weights: PEFT's names (`base_model.model.….lora_A.weight`) → whole tensors.
        config: PEFT's settings of the adapter.
        base: the model that it was trained on, and
        base_fingerprint: the `fingerprint` of that model.
    """
    from safetensors.torch import save_file

    with replacing(folder) as partial:
        partial.mkdir()
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(whole, partial / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        config.save_pretrained(str(partial))
        write_json(partial / TRAINED_OVER, {"base": base, "fingerprint": base_fingerprint})


def is_base(model: Path, adapter: Path) -> bool:
    """Whether the directory `model` holds the very weights that `adapter` was trained on."""
    trained = json.loads((adapter / TRAINED_OVER).read_text())
    return any(model.glob("*.safetensors")) and fingerprint(model) == trained["fingerprint"]


def base_of(adapter: Path, given: Path) -> Path:
    """The directory of the model that `adapter` was trained on: `given`, or the one that training read it from.

    Raises:
        ValueError: neither holds that model.
    """
    candidates = [given, Path(json.loads((adapter / TRAINED_OVER).read_text())["base"])]
    for model in candidates:
        if is_base(model, adapter):
            return model
    raise ValueError(
        f"the adapter in {adapter} was trained on other weights than those of {' and '.join(map(str, candidates))}: "
        "give the model that its training started from as --base"
    )


def copy_adapter(adapter: Path, out: Path, base: str) -> None:
    """Copies an adapter to `out`, whole or not at all, as one that belongs to the model `base`."""
    with replacing(out) as partial:
        shutil.copytree(adapter, partial)
        config = json.loads((partial / ADAPTER_CONFIG).read_text())
        write_json(partial / ADAPTER_CONFIG, config | {"base_model_name_or_path": base})


def merge_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Adds an adapter to the weights of `model`, in float32, rounded once to the type of each weight.

    Args:
        model: the model that the adapter was trained on; it is changed.
        adapter: the adapter's directory.

    Raises:
        ValueError: the adapter does not fit the model's modules, or makes a weight infinite or not a number.
    """
    import torch
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import load_file

    network: Any = get_peft_model(model, LoraConfig.from_pretrained(str(adapter)))
    weights = load_file(adapter / ADAPTER_WEIGHTS)
    _require_same_tensors(network, weights, adapter)
    set_peft_model_state_dict(network, weights)
    for layer in network.modules():
        if isinstance(layer, LoraLayer):
            original: Any = layer.get_base_layer()
            dtype, module = original.weight.dtype, layer
            assert isinstance(module, torch.nn.Module)
            module.to(torch.float32)
            layer.merge(safe_merge=True)
            original.to(dtype)
    return network.unload()


def _require_same_tensors(network: Any, weights: Mapping[str, Tensor], adapter: Path) -> None:
    from peft import get_peft_model_state_dict

    wanted = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(network).items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise ValueError(f"{adapter} does not match the architecture of the model: {len(wrong)} tensors, {wrong[:5]}")
