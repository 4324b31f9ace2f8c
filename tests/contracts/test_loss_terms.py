"""Terms beside the policy loss on verl's side: what they are given, how they are averaged, what a recipe is refused."""

import copy
import functools
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.utils.metric import AggregationType  # noqa: E402
from verl.workers.config import ActorConfig  # noqa: E402
from verl.workers.utils.losses import ppo_loss  # noqa: E402

from avar_rl.blind import BlindSettings  # noqa: E402
from avar_rl.verl_plugin.config.settings import AttentionSettings, GRPOSettings  # noqa: E402
from avar_rl.verl_plugin.forward.losses import LossWithTerms, loss_batch  # noqa: E402
from avar_rl.verl_plugin.forward.request import NOTHING, REQUEST, requested, update_request  # noqa: E402
from avar_rl.verl_plugin.grpo import advantage_step  # noqa: E402
from avar_rl.verl_plugin.grpo import queue as grpo_queue  # noqa: E402
from avar_rl.verl_plugin.grpo.run import checked  # noqa: E402
from rewards.losses import ActorLossSet, LossTerm, parse_losses  # noqa: E402
from tests.contracts.test_grpo_advantages import Queue, step_batch  # noqa: E402


def jagged(*rows) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


PROMPTS = ([1, 2], [3])
RESPONSES = ([4, 5, 6], [7, 8])
LOG_PROBS = [-9.0, -1.0, -2.0, -3.0, -9.0], [-4.0, -5.0, -9.0]  # of the token after each
IMAGE = {"image_grid_thw": torch.tensor([[1, 2, 2]])}


def micro_batch(rows=(0, 1), **columns) -> TensorDict:
    """Two rows: the first with an image and a right answer, its second token a tool's; the second with neither."""
    found = {
        "prompts": [PROMPTS[i] for i in rows],
        "responses": [RESPONSES[i] for i in rows],
        "response_mask": [([1, 0, 1], [1, 1])[i] for i in rows],
        "old_log_probs": [([-1.0, -2.0, -3.0], [-4.0, -5.0])[i] for i in rows],
        "advantages": [([1.0, 1.0, 1.0], [-1.0, -1.0])[i] for i in rows],
        "right": [[(1.0, 0.0)[i]] for i in rows],
    }
    data = TensorDict({name: jagged(*column) for name, column in found.items()}, batch_size=len(rows))
    inputs = [NonTensorData((IMAGE, {})[i]) for i in rows]
    data["multi_modal_inputs"] = NonTensorStack.from_list(inputs)
    for name, column in columns.items():
        data[name] = column
    tu.assign_non_tensor(data, dp_size=2, batch_num_tokens=4, global_batch_size=2)
    return data


def outputs(rows=(0, 1), **more) -> dict[str, torch.Tensor]:
    return {"log_probs": jagged(*[LOG_PROBS[i] for i in rows]).requires_grad_(), **more}


def test_what_a_term_is_given():
    masses = jagged([0.1, 0.2, 0.0, 0.0, 0.5, 0.6], [0.3, 0.3, 0.4, 0.4])  # two layers
    boxes = jagged([0.0, 0.1, 0.1, 0.5, 0.5, 1.0, 0.0, 0.0, 1.0, 1.0], [-1.0, 0.0, 0.0, 0.0, 0.0])
    blind = outputs(entropy=jagged([0.0, 1.0, 2.0, 3.0, 0.0], [4.0, 5.0, 0.0]))
    batch = loss_batch(outputs(image_mass=masses), blind, micro_batch(evidence=boxes))
    assert batch.response_mask_NT.tolist() == [[True, False, True], [True, True, False]]
    assert batch.log_probs_NT.tolist() == [[-1.0, -2.0, -3.0], [-4.0, -5.0, 0.0]] and batch.log_probs_NT.requires_grad
    assert batch.blind_log_probs_NT is not None and batch.blind_log_probs_NT.requires_grad
    assert batch.blind_entropy_NT is not None and batch.blind_entropy_NT.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]]
    assert batch.old_log_probs_NT.tolist() == [[-1.0, -2.0, -3.0], [-4.0, -5.0, 0.0]]
    assert batch.advantages_NT.tolist() == [[1.0, 1.0, 1.0], [-1.0, -1.0, 0.0]]
    assert batch.image_mass_NTL is not None and batch.image_mass_NTL.shape == (2, 3, 2)
    torch.testing.assert_close(batch.image_mass_NTL[1], torch.tensor([[0.3, 0.3], [0.4, 0.4], [0.0, 0.0]]))
    for flags in (batch.has_image_N, batch.has_region_N, batch.right_N):
        assert flags.tolist() == [True, False]
    assert batch.entropy_NT is None and batch.region_mass_NTL is None


def test_columns_of_one_length_may_come_unnested_and_rows_of_text_have_no_images():
    data = micro_batch(right=torch.tensor([[0.0], [1.0]]))
    del data["multi_modal_inputs"]
    batch = loss_batch(outputs(), None, data)
    assert batch.right_N.tolist() == [False, True]
    assert not batch.has_image_N.any() and not batch.has_region_N.any() and batch.blind_log_probs_NT is None


TERMS = """
from rewards.plugin import actor_loss
from rewards.sample import LossBatch

@actor_loss
def by_token(batch: LossBatch):
    return batch.log_probs_NT

@actor_loss
def by_sequence(batch: LossBatch):
    return batch.log_probs_NT[:, 0]

@actor_loss(needs=("blind",))
def careless(batch: LossBatch):
    return batch.log_probs_NT * 0.0
"""


def terms(tmp_path, **weights: float) -> ActorLossSet:
    (tmp_path / "terms.py").write_text(TERMS)
    return ActorLossSet(LossTerm(name, weight, str(tmp_path / "terms.py")) for name, weight in weights.items())


def with_terms(losses: ActorLossSet, mode: str, blind=None) -> LossWithTerms:
    config = ActorConfig(strategy="fsdp2", rollout_n=2, ppo_micro_batch_size_per_gpu=1, loss_agg_mode=mode)
    return LossWithTerms(functools.partial(ppo_loss, config=config), losses, blind)


@pytest.mark.parametrize(
    ("mode", "by_token"),
    [("token-mean", -(1 + 3 + 4 + 5) / 4), ("seq-mean-token-mean", -(2 + 4.5) / 2), ("seq-mean-token-sum", -13 / 2)],
)
def test_terms_are_averaged_over_the_global_batch_as_the_policy_loss_is(tmp_path, mode, by_token):
    loss_of = with_terms(terms(tmp_path, by_token=0.5, by_sequence=3.0), mode)
    whole, metrics = loss_of(outputs(), micro_batch())
    plain, verls = loss_of.policy(model_output=outputs(), data=micro_batch())
    expected = {"by_token": 0.5 * by_token * 2, "by_sequence": 3.0 * -(1 + 4) / 2 * 2}  # two ranks, whose mean is taken
    for name, value in expected.items():
        metric = metrics.pop(f"actor/loss_{name}")
        assert metric.aggregation == AggregationType.SUM and metric.values == [pytest.approx(value, rel=1e-6)]
    assert metrics.keys() == verls.keys()
    assert whole.item() == pytest.approx(plain.item() + sum(expected.values()), rel=1e-6)
    halves = [loss_of(outputs([i]), micro_batch([i]))[0].item() for i in (0, 1)]  # two micro-batches
    assert sum(halves) == pytest.approx(whole.item(), rel=1e-6)


def test_a_term_that_leaves_the_blind_pass_out_still_runs_its_backward_with_a_gradient_of_zero(tmp_path):
    blind = outputs()
    loss, _ = with_terms(terms(tmp_path, careless=1.0), "token-mean", lambda data: blind)(outputs(), micro_batch())
    loss.backward()
    grad = blind["log_probs"].grad
    assert grad is not None and not grad.values().any()


def test_what_is_asked_of_an_update():
    blind, layers = BlindSettings(share=0.3), AttentionSettings(layers=(1,))

    def asked(losses: dict):
        return update_request(GRPOSettings(losses=parse_losses(losses), blind=blind, attention=layers))

    assert asked({}) is NOTHING and asked({"papo": 0.0}) is NOTHING
    papo = asked({"papo": 0.01})
    assert papo.attention is None and papo.blind is None and papo.losses is not None
    assert papo.losses.blind == blind and papo.losses.terms == parse_losses({"papo": 0.01})
    evidence = asked({"evidence": 0.1})
    assert evidence.attention == layers and evidence.losses is not None and evidence.losses.blind is None


def test_the_request_reaches_every_mini_batch_and_micro_batch():
    losses = parse_losses({"papo": {"weight": 0.1, "clip": None}, "evidence": 1.0})
    request = update_request(GRPOSettings(losses=losses, blind=BlindSettings()))
    assert pickle.loads(pickle.dumps(request)) == copy.deepcopy(request) == request
    data = micro_batch()
    tu.assign_non_tensor_data(data, key=REQUEST, val=request)
    mini_batches = list(tu.make_iterator(data, mini_batch_size=2, epochs=2, seed=1))
    micro_batches = [half for batch in mini_batches for half in tu.chunk_tensordict(batch, 2)]
    assert [requested(batch) for batch in micro_batches] == [request] * 4


def test_every_row_says_whether_it_is_right_verls_filler_rows_too(monkeypatch):
    queue = Queue()
    monkeypatch.setattr(grpo_queue, "transfer_queue", queue)
    queue.rows = {key: {} for key in ("a", "pad", "b", "c")}
    accuracies = {"a": 1.0, "b": 0.0, "c": None}  # None: undecided
    scored: Any = SimpleNamespace(responses=[SimpleNamespace(key=k, accuracy=v) for k, v in accuracies.items()])
    advantage_step._write_right(step_batch(list(queue.rows)), scored)
    assert {key: row["right"].tolist() for key, row in queue.rows.items()} == {
        "a": [1.0],
        "pad": [0.0],
        "b": [0.0],
        "c": [0.0],
    }


PAPO = "+avar.losses.papo=0.01"


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ([PAPO], r"the actor loss papo \(avar.losses.papo\) needs a blind pass, and avar.blind is null"),
        ([PAPO, "avar.blind={}", "trainer.v1.trainer_mode=separate_async"], "trainer_mode=separate_async"),
        (["+avar.losses.evidence=0.1", "actor_rollout_ref.actor.use_prefix_grouper=true"], "use_prefix_grouper=True"),
        (
            ["+avar.losses.evidence=0.1", "~avar.rewards.accuracy", "avar.rewards.visual.gate=null"],
            "avar.losses adds evidence to the actor's loss, but no reward says which responses are right; list",
        ),
        (["+avar.losses.papo=-0.01", "avar.blind={}"], "avar.losses.papo.weight"),
        (["+avar.losses.popo=0.01"], "unknown actor loss popo; rewards/ has double_entropy, evidence, papo"),
    ],
)
def test_what_an_update_could_not_do_is_refused_before_the_start(overrides, fault):
    with pytest.raises(ValueError, match=fault):
        checked("recipes/config/tiny_grpo", overrides)


def test_entropies_are_computed_where_a_term_needs_them():
    config, _ = checked("recipes/config/tiny_grpo", [PAPO, "avar.blind={}"])
    assert not config.actor_rollout_ref.actor.calculate_entropy
    config, _ = checked("recipes/config/tiny_grpo", [PAPO, "+avar.losses.double_entropy=0.03", "avar.blind={}"])
    assert config.actor_rollout_ref.actor.calculate_entropy and config.actor_rollout_ref.actor.entropy_coeff == 0
