"""LoRA in verl's FSDP engine: which adapters are trained how, and what a checkpoint keeps of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from verl.utils.fsdp_utils import collect_lora_params, load_fsdp_model_to_gpu, offload_fsdp_model_to_cpu

from avar_rl.adapters import ADAPTER_FOLDER, fingerprint, write_adapter
from avar_rl.runtime.hub import model_directory


def without_input_gradients(module: Any) -> Any:
    """Keeps the outputs of the embeddings, the vision tower's too, from requiring gradients for their own sake.

    transformers (where it checkpoints activations), verl and PEFT each see to it that they do. Reentrant checkpointing
    needs that. verl's is not reentrant, and the backward pass would run through the frozen tower, whose activations
    would be kept for it, for nothing.

    Args:
        module: the transformers model that adapters are about to be put into.
    """
    module.disable_input_require_grads()
    module.enable_input_require_grads = lambda: None
    return module


def in_float32(module: Any) -> Any:
    """Casts the trained parameters, the adapters, to float32, in which they learn from steps that bfloat16 rounds away.

    verl casts them to the type of the frozen weights, as FSDP asked for one type for all. FSDP2 asks for one type of
    the trained ones only.
    """
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return module


class AdapterCheckpoint:
    """Writes the adapter of an engine's model into its checkpoints, as `avar_rl.export` reads it."""

    def __init__(self, engine: Any) -> None:
        """For an initialised engine. ValueError: the model's weights cannot be told from others'."""
        self._engine = engine
        # verl's own "model" would hold the frozen weights, too; its "hf_model" would, under PEFT's names, load nowhere.
        manager = engine.checkpoint_manager
        manager.checkpoint_config = replace(manager.checkpoint_config, save_lora_only=True)
        manager.checkpoint_save_contents = [part for part in manager.checkpoint_save_contents if part != "hf_model"]
        self._base: str = engine.model_config.local_path
        self._fingerprint = fingerprint(model_directory(self._base)) if engine.rank == 0 else ""

    def write(self, checkpoint: Path) -> None:
        """Every rank calls this, once the checkpoint's folder is there; rank 0 writes."""
        engine = self._engine
        if not engine._uses_fsdp2_cpu_offload_policy:
            load_fsdp_model_to_gpu(engine.module)
        weights = collect_lora_params(engine.module, layered_summon=False, base_sync_done=True)
        if engine.is_param_offload_enabled:
            offload_fsdp_model_to_cpu(engine.module)
        if engine.rank == 0:
            network = getattr(engine.module, "_fsdp_wrapped_module", engine.module)
            config = network.peft_config["default"]
            write_adapter(
                checkpoint / ADAPTER_FOLDER, weights, config, base=self._base, base_fingerprint=self._fingerprint
            )
        torch.distributed.barrier()
