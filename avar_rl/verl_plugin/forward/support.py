"""The tokens that a rollout may sample, and the actor's probabilities over the same ones.

verl masks image and video pads, and what the model has of vocabulary beyond the tokenizer's, in the rollout's logits
(vllm_rollout/utils.py:106, "monkey_patch_compute_logits"), before vLLM takes its log-probabilities; the actor's go over
all tokens. A policy that gives those a mass m has its other probabilities too small there by the factor 1 - m.

Shapes: T positions, V logits of a position.
"""

from typing import Any

import torch
from verl.workers.rollout.utils import get_vision_placeholder_token_ids

# exp() of it is 0 beside any logit that a model gives. Finite, since verl's entropy multiplies logits by probabilities;
# small enough for fp16, and for a division by a temperature.
_OUT = -1.0e4


def leave_out_the_unsampled(logits_TV: torch.Tensor, model_config: Any) -> None:
    """Takes from logits, in place, what verl's rollout never samples: no mass, and no gradient, is left there.

    Args:
        logits_TV: of any shape before V.
        model_config: verl's `HFModelConfig`, with the processor and tokenizer that the rollout has.
    """
    logits_TV[..., len(model_config.tokenizer) :] = _OUT
    logits_TV[..., get_vision_placeholder_token_ids(model_config.processor)] = _OUT
