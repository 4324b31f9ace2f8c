"""What verl's trainer tells the engine with each batch of a cold start, for the workers beside this file."""

from typing import Any


def told(trainer: Any, config: Any) -> dict[str, Any]:
    """Of a `GuidedSFTTrainer` and its stage's configuration: what goes beside the tensors of a batch."""
    return {
        "use_remove_padding": config.model.use_remove_padding,
        "use_fused_kernels": config.model.use_fused_kernels,
        "use_dynamic_bsz": config.data.use_dynamic_bsz,
        "max_token_len_per_gpu": config.data.max_token_len_per_gpu,
        "micro_batch_size_per_gpu": config.data.micro_batch_size_per_gpu,
        "temperature": 1.0,
        "global_batch_size": config.data.train_batch_size,
        "pad_mode": config.data.pad_mode,
        "pad_token_id": trainer.model_config.tokenizer.pad_token_id,
    }
