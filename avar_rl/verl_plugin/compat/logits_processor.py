"""A vLLM logits processor: tokens that stand for images or videos are never sampled.

A policy that samples an image pad makes the next forward fail (more pads than image features). vLLM loads this class
by name: `actor_rollout_ref.rollout.engine_kwargs.vllm.logits_processors` in recipes/config/grpo.yaml.
"""

import torch
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor


class NoVisionTokens(LogitsProcessor):
    """Sets the logits of the model's image, video and vision-marker ids to -inf in every request."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool):
        config = vllm_config.model_config.hf_config
        names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        self._ids = torch.tensor(sorted({getattr(config, name) for name in names}), device=device)

    def is_argmax_invariant(self) -> bool:
        return False  # the masked token may be the likeliest

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        return None  # the same for every request

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        logits[:, self._ids] = float("-inf")
        return logits
