"""verl's policy losses under the overrides that docs/methods/policy_losses.md gives: values and gradients by hand, and
what becomes of tokens whose advantage a token weight has made 0."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from verl.trainer.ppo.core_algos import get_policy_loss_fn  # noqa: E402
from verl.utils.config import omega_conf_to_dataclass  # noqa: E402

from avar_rl.verl_plugin.config import recipe  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "methods" / "policy_losses.md"
ACTOR = "actor_rollout_ref.actor"
# Two responses, of three tokens and of two: log-ratios of new to old probabilities, advantages, and the mask.
RATIO = torch.tensor([[1.5, 0.5, 1.0], [0.9, 4.0, 1.0]])
ADVANTAGE = torch.tensor([[1.0, 1.0, 1.0], [-2.0, -2.0, 0.0]])
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
OLD = torch.full((2, 3), -1.0)


def documented() -> dict[str, list[str]]:
    """Name → overrides of each loss in the page's table."""
    rows = re.findall(r"^\| ([\w -]+?) \| `([^|]+)` \|", PAGE.read_text(), re.MULTILINE)
    return {name: overrides.replace("…", ACTOR).split() for name, overrides in rows}


def loss_of(overrides: list[str], advantage: Tensor = ADVANTAGE) -> tuple[float, Tensor]:
    """The loss of the two responses, and its gradient by their log-probabilities."""
    config = recipe.load("recipes/config/tiny_grpo", overrides, stage="grpo")
    recipe.check_grpo(config)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    log_probs = (OLD + RATIO.log()).requires_grad_()
    loss, _ = get_policy_loss_fn(actor.policy_loss.loss_mode)(
        old_log_prob=OLD,
        log_prob=log_probs,
        advantages=advantage,
        response_mask=MASK,
        loss_agg_mode=actor.loss_agg_mode,
        config=actor,
    )
    loss.backward()
    assert log_probs.grad is not None
    return float(loss.detach()), log_probs.grad


def mean_of_means(first: list[float], second: list[float]) -> float:
    return (sum(first) / 3 + sum(second) / 2) / 2


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# By hand, with the page's settings. A = 1 for the first response, -2 for the second.
EXPECTED = {
    # min(r A, clip(r) A), clip to [0.8, 1.2]: 1.2, 0.5, 1; for A < 0: -2 * 0.9, and -2 * 4, which dual clip makes -6
    "PPO with dual clip": -mean_of_means([1.2, 0.5, 1.0], [-1.8, -6.0]),
    # token mean, clip to [0.8, 1.28]
    "DAPO clip-higher": -(1.28 + 0.5 + 1.0 - 1.8 - 6.0) / 5,
    # sequence ratios: (1.5 * 0.5)^(1/3), below 1 - 3e-4, so that with A > 0 it counts; 3.6^(1/2) with A < 0
    "GSPO": -mean_of_means([0.75 ** (1 / 3)] * 3, [-2 * math.sqrt(3.6)] * 2),
    # sg(min(r, 5)) A log p; no lower bound
    "CISPO": -mean_of_means(
        [r * (-1 + math.log(r)) for r in (1.5, 0.5, 1.0)], [-2 * r * (-1 + math.log(r)) for r in (0.9, 4.0)]
    ),
    # 4 / tau * sigmoid(tau (r - 1)) A, tau = 1 where A > 0, else 1.05
    "SAPO": -mean_of_means(
        [4 * sigmoid(r - 1) for r in (1.5, 0.5, 1.0)], [-2 * 4 / 1.05 * sigmoid(1.05 * (r - 1)) for r in (0.9, 4.0)]
    ),
}


def test_the_page_lists_what_is_tested_here():
    assert set(documented()) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_values_are_those_of_the_papers(name):
    assert loss_of(documented()[name])[0] == pytest.approx(EXPECTED[name], rel=1e-6)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_token_whose_advantage_is_weighted_to_zero_carries_no_gradient_and_leaves_the_others(name):
    _, whole = loss_of(documented()[name])
    _, weighted = loss_of(documented()[name], ADVANTAGE * torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]))
    assert weighted[0, 1] == 0.0 and whole[0, 1] != 0.0
    others = torch.tensor([[True, False, True], [True, True, True]])
    torch.testing.assert_close(weighted[others], whole[others], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([f"{ACTOR}.policy_loss.loss_mode=gpso"], "loss_mode=gpso: verl has bypass_mode, cispo, "),
        ([f"{ACTOR}.policy_loss.loss_mode=bypass_mode"], "bypass_mode: it skips the actor's pass over the responses"),
        ([f"{ACTOR}.policy_loss.loss_mode=dro"], "loss_mode=dro needs actor_rollout_ref.actor.policy_loss.dro_beta"),
        ([f"{ACTOR}.clip_ratio=0.3"], "clip_ratio=0.3 is not read beside clip_ratio_low=0.2 and clip_ratio_high=0.2"),
    ],
)
def test_what_verl_would_find_out_in_the_first_update_or_pass_over_is_refused(overrides, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        loss_of(overrides)
