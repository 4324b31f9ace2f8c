"""Checks of a stage's LoRA settings (verl's `model.lora_rank`, `lora_alpha`, `target_modules`, …) before it starts.

verl and PEFT would take most mistakes without a word: a rank of 0 with target modules trains every weight, a name that
no module has is left out, and vLLM serves a policy without the adapters that it has no place for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from avar_rl.adapters import ADAPTER_CONFIG, TRAINED_OVER, is_base
from avar_rl.attention.families import require_supported

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

LARGEST_RANK = 512  # of vLLM (config/lora.py, MaxLoRARanks)
DEFAULT_TARGETS = "all-linear"  # verl's


def check_lora(model: DictConfig, *, rollout: bool) -> None:
    """Checks the LoRA settings of a training stage; a stage without any has nothing to check.

    Args:
        model: verl's `model` node of the stage (`actor_rollout_ref.model` in GRPO). Where its `path` is no directory
            yet, or a name on the hub, the model's modules are not looked at.
        rollout: whether vLLM is to serve the adapters (GRPO).

    Raises:
        ValueError: one sentence that names the setting at fault.
    """
    rank, alpha, start, path = model.lora_rank, model.lora_alpha, model.get("lora_adapter_path"), model.path
    if not _whole(rank) or rank < 0:
        raise ValueError(f"model.lora_rank={rank} must be a whole number: 0 for none, else the rank of the adapters")
    _check_unused(model)
    if rank == 0:
        return
    if not _whole(alpha) or alpha <= 0:
        raise ValueError(
            f"model.lora_alpha={alpha} must be a whole number above 0: adapters are scaled by lora_alpha / lora_rank, "
            "and with 0 nothing would be learned"
        )
    if rollout and rank > LARGEST_RANK:
        raise ValueError(f"model.lora_rank={rank} is more than the {LARGEST_RANK} that vLLM serves")
    if start is not None:
        _check_start(Path(start), rank, Path(path))
    if (Path(path) / "config.json").is_file():
        _check_modules(model, path, rollout)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_unused(model: DictConfig) -> None:
    """Settings that would do nothing as they stand."""
    if (model.get("lora") or {}).get("rank", 0) > 0:
        raise ValueError(f"model.lora.rank={model.lora.rank} is Megatron's; for FSDP set model.lora_rank")
    names = ("target_modules", "target_parameters", "lora_adapter_path")
    asked = [name for name in names if model.get(name) not in (None, DEFAULT_TARGETS)]
    if model.lora_rank == 0 and asked:
        raise ValueError(
            f"model.{asked[0]}={model[asked[0]]} does nothing with model.lora_rank=0, which trains every weight: set "
            "lora_rank, to 32 for example"
        )


def _check_start(adapter: Path, rank: int, base: Path) -> None:
    """The adapter that training goes on from."""
    if not (adapter / ADAPTER_CONFIG).is_file():
        raise ValueError(f"model.lora_adapter_path={adapter} has no {ADAPTER_CONFIG}: not an adapter in PEFT's format")
    found = json.loads((adapter / ADAPTER_CONFIG).read_text()).get("r")
    if found != rank:
        raise ValueError(f"model.lora_adapter_path={adapter} has rank {found}, not model.lora_rank={rank}")
    if (adapter / TRAINED_OVER).is_file() and base.is_dir() and not is_base(base, adapter):
        raise ValueError(
            f"model.lora_adapter_path={adapter} was trained on other weights than those of model.path={base}: give the "
            "model that its training started from"
        )


def _check_modules(model: DictConfig, path: str, rollout: bool) -> None:
    """Puts adapters into the model's architecture, without weights, as PEFT will, and looks where they went."""
    import torch
    from peft.tuners.lora import LoraLayer
    from transformers import AutoConfig, AutoModelForImageTextToText

    architecture = AutoConfig.from_pretrained(path)
    require_supported(architecture.model_type)
    with torch.device("meta"):
        network = AutoModelForImageTextToText.from_config(architecture)
        linear = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
        decoder: Any = network.get_decoder()
        adapted = _adapted(network, model, path, linear)
    places = {
        name.removeprefix("base_model.model."): module
        for name, module in adapted.named_modules()
        if isinstance(module, LoraLayer)
    }
    served = set(decoder.layers.modules())
    outside = [name for name, module in places.items() if module not in served]
    ends = [name for name in outside if not name.startswith("model.visual.")]  # embeddings, the output layer
    if ends:
        raise ValueError(
            f"adapters on {ends[0]} are not supported, they go on the layers of the language model or the vision "
            "tower: leave it out of model.target_modules"
        )
    if rollout and outside:
        raise ValueError(
            f"adapters on {outside[0]} and {len(outside) - 1} other modules of the vision tower would be trained but "
            "not sampled from, as vLLM leaves them out: exclude them with model.exclude_modules='.*visual.*'"
        )


def _adapted(network: PreTrainedModel, model: DictConfig, path: str, linear: set[str]) -> PeftModel:
    """`network` with the adapters that the settings ask for. ValueError: one of them names what is not there."""
    from peft import get_peft_model

    targets = model.get("target_modules")
    if isinstance(targets, ListConfig) and model.get("lora_adapter_path") is None:
        absent = [t for t in targets if not any(f".{name}".endswith(f".{t}") for name, _ in network.named_modules())]
        if absent:
            raise ValueError(
                f"model.target_modules names {', '.join(map(str, absent))}, which {path} does not have; its linear "
                f"modules are {', '.join(sorted({name.rsplit('.', 1)[-1] for name in linear}))}"
            )
    try:
        return get_peft_model(network, _peft_config(model))
    except (ValueError, TypeError) as error:
        names = ("target_modules", "target_parameters", "exclude_modules")
        given = ", ".join(f"model.{name}={model[name]}" for name in names if model.get(name) is not None)
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ValueError(f"no adapters can be put into {path} with {given}: {reason}") from error


def _peft_config(model: DictConfig) -> PeftConfig:
    """As verl's engine makes it."""
    from peft import LoraConfig

    if model.get("lora_adapter_path") is not None:
        return LoraConfig.from_pretrained(model.lora_adapter_path)
    names = ("target_modules", "target_parameters", "exclude_modules")
    plain: Any = OmegaConf.to_container(model, resolve=True)
    chosen = {name: plain.get(name) for name in names}
    return LoraConfig(r=model.lora_rank, lora_alpha=model.lora_alpha, **chosen)
