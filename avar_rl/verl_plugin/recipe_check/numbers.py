"""A training stage's configuration -> the numbers that `avar_rl.estimate` works with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from avar_rl import estimate
from avar_rl.estimate import ModelSizes, RolloutEngine, Training
from avar_rl.runtime.files import count_rows
from avar_rl.verl_plugin.recipe_check.model_sizes import adapter_parameters

_BYTES = {"fp32": 4, "float32": 4, "float": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "half": 2}


@dataclass(frozen=True)
class StageNumbers:
    """One training stage.

    longest: tokens of its longest sequence, below which `training.tokens` cannot go. prompt: those of a prompt at most.
    sequences: that a step trains on. pixels: bytes of the pixel values that a step's queue holds. recorded: tokens in
    the rollout record of the whole stage; None where the number of steps is not known yet. kept: checkpoints at a time.
    """

    name: str
    model: ModelSizes | None
    training: Training
    nodes: int
    longest: int
    sequences: int
    kept: int
    checkpoints: Path
    rollout: RolloutEngine | None = None
    pixels: float = 0.0
    recorded: float | None = 0.0
    prompt: int = 0


def sft_numbers(name: str, config: DictConfig, sizes: ModelSizes | None, module: Any) -> StageNumbers:
    """The numbers of a cold start. `sizes` and `module` are the model's (see `model_sizes`); None: not known yet."""
    data, engine, trainer = config.data, config.engine, config.trainer
    packed = data.max_token_len_per_gpu if data.use_dynamic_bsz else data.micro_batch_size_per_gpu * data.max_length
    gpus = trainer.nnodes * trainer.n_gpus_per_node
    return StageNumbers(
        name=name,
        model=_adapted(sizes, module, config.model),
        training=_training(engine, config.model, gpus, packed),
        nodes=trainer.nnodes,
        longest=data.max_length,
        sequences=data.train_batch_size,
        kept=_kept(trainer.max_ckpt_to_keep),
        checkpoints=Path(trainer.default_local_dir),
    )


def grpo_numbers(
    name: str, config: DictConfig, sizes: ModelSizes | None, module: Any, pixel_cap: int | None
) -> StageNumbers:
    """The numbers of a GRPO stage. `pixel_cap`: pixels of the largest image; None: as many as fit the prompt."""
    data, parts, trainer = config.data, config.actor_rollout_ref, config.trainer
    longest = data.max_prompt_length + data.max_response_length
    actor, rollout = parts.actor, parts.rollout
    packed = actor.ppo_max_token_len_per_gpu if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu * longest
    gpus, responses = trainer.nnodes * trainer.n_gpus_per_node, data.train_batch_size * rollout.n
    model = _adapted(sizes, module, parts.model)
    training = _training(actor.fsdp_config, parts.model, gpus, packed)
    return StageNumbers(
        name=name,
        model=model,
        training=training,
        nodes=trainer.nnodes,
        longest=longest,
        sequences=responses,
        kept=_kept(trainer.max_actor_ckpt_to_keep),
        checkpoints=Path(trainer.default_local_dir),
        rollout=RolloutEngine(
            share=rollout.gpu_memory_utilization,
            tensor_parallel=rollout.tensor_model_parallel_size,
            length=rollout.max_model_len or longest,
            dtype=_BYTES[rollout.dtype],
            host_parameters=bool(actor.fsdp_config.param_offload),
            host_optimizer=bool(actor.fsdp_config.optimizer_offload),
            stays=not rollout.free_cache_engine,
        ),
        pixels=responses * _image_bytes(model, training, data.max_prompt_length, pixel_cap),
        recorded=_recorded(config, responses * data.max_response_length),
        prompt=data.max_prompt_length,
    )


def _training(engine: DictConfig, model: DictConfig, gpus: int, tokens: int) -> Training:
    precision = engine.get("mixed_precision") or {}
    return Training(
        gpus=gpus,
        tokens=tokens,
        dtype=_BYTES[engine.model_dtype or "fp32"],
        compute=_BYTES[precision.get("param_dtype", "bf16")],
        checkpointing=bool(model.enable_gradient_checkpointing),
        fused=bool(model.use_fused_kernels),
        host_states=bool(engine.offload_policy),
    )


def _adapted(sizes: ModelSizes | None, module: Any, model: DictConfig) -> ModelSizes | None:
    """The sizes with the adapters that the stage trains."""
    if sizes is None or not model.lora_rank:
        return sizes
    return replace(
        sizes, adapters=adapter_parameters(module, model.lora_rank, model.target_modules, model.exclude_modules)
    )


def _kept(keep: int | None) -> int:
    """Checkpoints on the disk at a time: verl removes an old one before it saves, unless it keeps only one."""
    return 2 if keep == 1 else keep or 1


def _image_bytes(model: ModelSizes | None, run: Training, prompt: int, pixel_cap: int | None) -> int:
    """Pixel values of a response's image, in the type that the actor computes in (compat/image_cache.py)."""
    if model is None:
        return 0
    tokens = prompt if pixel_cap is None else min(prompt, estimate.image_tokens(pixel_cap, model))
    return estimate.pixel_bytes(model, tokens, run.compute)


def _recorded(config: DictConfig, step_tokens: int) -> float | None:
    """Tokens in the rollout record; None where the number of steps is known only once the data is there."""
    record, trainer = config.avar.rollouts, config.trainer
    if record.dir is None:
        return 0.0
    steps = trainer.total_training_steps
    file = Path(config.data.train_files) if isinstance(config.data.train_files, str) else None
    if steps is None and file is not None and file.is_file():
        steps = count_rows(file) // config.data.train_batch_size * trainer.total_epochs
    return None if steps is None else step_tokens * steps / record.every
