"""The actor's probabilities go over the tokens that verl's rollout may sample."""

from types import SimpleNamespace
from typing import Any

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

import torch  # noqa: E402
from verl.utils.torch_functional import entropy_from_logits  # noqa: E402
from verl.workers.rollout.utils import get_vision_placeholder_token_ids  # noqa: E402
from verl.workers.rollout.vllm_rollout.utils import monkey_patch_compute_logits  # noqa: E402

from avar_rl.verl_plugin.forward.support import leave_out_the_unsampled  # noqa: E402

# A vocabulary of 6, of which the tokenizer has 5; 1 is the image pad, 3 the video pad.
MODEL_CONFIG: Any = SimpleNamespace(
    tokenizer=range(5), processor=SimpleNamespace(image_token_id=1, video_token_id=3, image_token="", video_token="")
)
PROBABILITIES = torch.tensor([[0.2, 0.1, 0.2, 0.3, 0.1, 0.1], [0.05, 0.0, 0.9, 0.0, 0.05, 0.0]])


def test_probabilities_entropy_and_gradients_are_those_of_the_tokens_that_are_left():
    for temperature in (1.0, 0.5):
        leaf = PROBABILITIES.log().clamp(min=-50).requires_grad_()
        logits = leaf * 1
        leave_out_the_unsampled(logits, MODEL_CONFIG)
        scaled = logits / temperature
        # of 0.2, 0.2, 0.1 and of 0.05, 0.9, 0.05; with a temperature of 0.5, of their squares
        kept = PROBABILITIES[:, [0, 2, 4]] ** (1 / temperature)
        kept = kept / kept.sum(-1, keepdim=True)
        torch.testing.assert_close(scaled.softmax(-1)[:, [0, 2, 4]], kept)
        torch.testing.assert_close(entropy_from_logits(scaled), -(kept * kept.log()).sum(-1))
        scaled.log_softmax(-1)[:, 2].sum().backward()
        assert leaf.grad is not None and leaf.grad[:, [1, 3, 5]].abs().max() == 0.0
        assert leaf.grad[:, [0, 2, 4]].abs().min() > 0.0


def test_it_is_what_verl_masks_in_the_rollout():
    logits = PROBABILITIES.log().clamp(min=-50)
    rollout: Any = SimpleNamespace(compute_logits=lambda: logits.clone())
    banned = get_vision_placeholder_token_ids(MODEL_CONFIG.processor)
    monkey_patch_compute_logits(rollout, len(MODEL_CONFIG.tokenizer), banned)
    actor = logits.clone()
    leave_out_the_unsampled(actor, MODEL_CONFIG)
    assert banned == [1, 3]
    torch.testing.assert_close(actor.softmax(-1), rollout.compute_logits().softmax(-1), rtol=0, atol=0)


def test_half_precision_holds_it():
    for dtype in (torch.bfloat16, torch.float16):
        logits = PROBABILITIES.log().clamp(min=-50).to(dtype)
        leave_out_the_unsampled(logits, MODEL_CONFIG)
        assert logits.isfinite().all() and logits.float().softmax(-1)[:, [1, 3, 5]].max() == 0.0
