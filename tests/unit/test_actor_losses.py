"""Loss terms by hand: values, signs of gradients, and what a set of them refuses."""

import math
from dataclasses import replace

import pytest
import torch

from rewards.actor_losses.double_entropy import double_entropy
from rewards.actor_losses.evidence import evidence
from rewards.actor_losses.papo import papo
from rewards.losses import ActorLossSet, LossTerm, parse_losses
from rewards.sample import LossBatch


def batch(log_probs, **changes) -> LossBatch:
    """Two rows of which all tokens count; the second has no image, no box, and a wrong answer."""
    log_probs_NT = torch.tensor(log_probs)
    N = len(log_probs)
    first_N = torch.arange(N) == 0
    zeros_NT = torch.zeros_like(log_probs_NT)
    mask_NT = torch.ones_like(log_probs_NT, dtype=torch.bool)
    found = LossBatch(mask_NT, log_probs_NT, zeros_NT, zeros_NT, first_N, first_N, first_N)
    return replace(found, **changes)


def leaf(values) -> torch.Tensor:
    return torch.tensor(values, requires_grad=True)


# ------------------------------------------------------------------ papo


def test_papo_is_minus_k3_of_rows_with_an_image():
    clean, blind = leaf([[-1.0, -1.0, -2.0], [-1.0, -1.0, -1.0]]), leaf([[-1.0, -3.0, -1.0], [-9.0, -9.0, -9.0]])
    found = papo(batch([[0.0] * 3] * 2, log_probs_NT=clean, blind_log_probs_NT=blind))
    # d = 0, -2, 1: exp(d) - d - 1 = 0, e^-2 + 1, e - 2
    expected = torch.tensor([[0.0, -(math.exp(-2) + 1), -(math.e - 2)], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    # term = -k3: its gradient is exp(d) - 1 with the image and 1 - exp(d) without
    torch.testing.assert_close(clean.grad[0], torch.tensor([0.0, math.exp(-2) - 1, math.e - 1]))
    torch.testing.assert_close(blind.grad[0], -clean.grad[0])
    assert not clean.grad[1].any() and not blind.grad[1].any()


def test_a_step_down_papo_makes_a_token_likelier_with_the_image_where_it_is_likelier_there():
    clean, blind = leaf([[-1.0]]), leaf([[-2.0]])
    papo(batch([[0.0]], log_probs_NT=clean, blind_log_probs_NT=blind)).sum().backward()
    assert clean.grad.item() < 0 < blind.grad.item()  # descent raises the one and lowers the other


def test_papos_gradient_is_that_of_kl_q_p_of_the_clean_half_and_of_kl_p_q_of_the_blind_half():
    generator = torch.Generator().manual_seed(0)
    clean, blind = (torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    log_p, log_q = clean.log_softmax(0), blind.log_softmax(0)
    tokens = batch([[0.0] * 5], log_probs_NT=log_p[None], blind_log_probs_NT=log_q[None])
    k3 = -papo(tokens, clip=None)[0]
    p, q = log_p.exp(), log_q.exp()
    kl_pq, kl_qp = (p * (log_p - log_q)).sum(), (q * (log_q - log_p)).sum()
    assert float((p * k3).sum()) == pytest.approx(float(kl_pq))  # the mean over tokens of p
    over_tokens = torch.autograd.grad((p.detach() * k3).sum(), [clean, blind], retain_graph=True)
    (wanted_clean,) = torch.autograd.grad(kl_qp, [clean], retain_graph=True)
    wanted_blind, other_clean = torch.autograd.grad(kl_pq, [blind, clean])
    torch.testing.assert_close(over_tokens[0], wanted_clean)
    torch.testing.assert_close(over_tokens[1], wanted_blind)
    assert (over_tokens[0] - other_clean).norm() > 0.1 * other_clean.norm()  # not that of KL(p || q)


def test_papo_leaves_tokens_alone_that_differ_by_more_than_the_clip():
    clean, blind = leaf([[-1.0, -1.0, -30.0]]), leaf([[-14.0, -2.0, -1.0]])  # k3: about 12, 0.37, 5e8
    papo(batch([[0.0] * 3], log_probs_NT=clean, blind_log_probs_NT=blind)).sum().backward()
    assert [float(x) for x in clean.grad[0]] == pytest.approx([0.0, math.exp(-1) - 1, 0.0])
    found = papo(batch([[0.0] * 3], log_probs_NT=clean, blind_log_probs_NT=blind), clip=0.2)
    assert found.tolist() == [[pytest.approx(-0.2)] * 3]
    assert torch.isfinite(papo(batch([[-300.0]], blind_log_probs_NT=torch.tensor([[-1.0]])), clip=None)).all()


def test_papo_without_the_blind_gradient():
    clean, blind = leaf([[-1.0]]), leaf([[-2.0]])
    papo(batch([[0.0]], log_probs_NT=clean, blind_log_probs_NT=blind), blind_gradient=False).sum().backward()
    assert clean.grad.item() == pytest.approx(math.exp(-1) - 1) and blind.grad is None


# ------------------------------------------------------------------ double entropy


def test_double_entropy_adds_both_entropies_of_rows_with_an_image():
    sharp, blind = leaf([[1.0, 2.0], [5.0, 5.0]]), leaf([[3.0, 4.0], [5.0, 5.0]])
    found = double_entropy(batch([[0.0] * 2] * 2, entropy_NT=sharp, blind_entropy_NT=blind), image=0.5, blind=2.0)
    assert found.tolist() == [[6.5, 9.0], [0.0, 0.0]]
    found.sum().backward()
    assert sharp.grad.tolist() == [[0.5, 0.5], [0.0, 0.0]] and blind.grad.tolist() == [[2.0, 2.0], [0.0, 0.0]]


# ------------------------------------------------------------------ evidence

REGION = [[[0.1, 0.2], [0.3, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]  # two tokens, two layers
IMAGE = [[[0.2, 0.4], [0.6, 0.2]], [[0.2, 0.2], [0.2, 0.2]]]


def looked(**changes) -> LossBatch:
    masses = {"region_mass_NTL": leaf(REGION), "image_mass_NTL": leaf(IMAGE)}
    return batch([[0.0] * 2] * 2, **(masses | changes))


def test_evidence_is_the_share_of_attention_on_boxes_layer_by_layer():
    of_image = looked()
    found = evidence(of_image)
    # layer 0: 0.4 / 0.8, layer 1: 0.2 / 0.6
    assert found.tolist() == [pytest.approx(-(math.log(1 / 2) + math.log(1 / 3)) / 2), 0.0]
    found.sum().backward()
    assert (of_image.region_mass_NTL.grad[0] < 0).all() and (of_image.image_mass_NTL.grad[0] > 0).all()
    assert not of_image.region_mass_NTL.grad[1].any() and not of_image.image_mass_NTL.grad[1].any()
    # all attention: the mean over tokens is 0.2 and 0.1
    assert evidence(looked(), of="all").tolist() == [pytest.approx(-(math.log(0.2) + math.log(0.1)) / 2), 0.0]


def test_evidence_counts_right_responses_with_boxes_and_tokens_that_count():
    no, yes = torch.tensor([False, False]), torch.tensor([True, True])
    assert evidence(looked(right_N=no)).tolist() == [0.0, 0.0]
    assert evidence(looked(has_region_N=no)).tolist() == [0.0, 0.0]
    mask = torch.tensor([[True, False], [True, True]])
    assert evidence(looked(response_mask_NT=mask))[0].item() == pytest.approx(-math.log(1 / 2))  # in both layers
    empty = looked(response_mask_NT=torch.zeros(2, 2, dtype=torch.bool), right_N=yes, has_region_N=yes)
    assert evidence(empty).tolist() == [0.0, 0.0]
    nothing = looked(right_N=yes, has_region_N=yes)  # no attention at all on the second row's boxes
    found = evidence(nothing)
    found.sum().backward()
    assert torch.isfinite(found).all() and torch.isfinite(nothing.region_mass_NTL.grad).all()


# ------------------------------------------------------------------ a set of terms

HEADER = """
import torch
from rewards.plugin import actor_loss
from rewards.sample import LossBatch
"""


def declared(folder, body: str, needs: str = "()") -> LossTerm:
    file = folder / f"term_{len(list(folder.iterdir()))}.py"
    file.write_text(f"{HEADER}\n@actor_loss(needs={needs})\ndef mine(batch: LossBatch):\n    {body}\n")
    return LossTerm("mine", 2.0, str(file))


def test_a_set_evaluates_its_terms_and_keeps_their_weights(tmp_path):
    term = declared(tmp_path, "return batch.log_probs_NT * 3")
    losses = ActorLossSet([*parse_losses({"papo": {"weight": 0.01, "clip": 1.0}, "double_entropy": 0}), term])
    assert losses.names == ("papo", "mine") and losses.weights == {"papo": 0.01, "mine": 2.0}
    assert losses.needs == {"blind"}  # no entropies: their term has no weight
    mask = torch.tensor([[True, True], [True, False]])
    blind = torch.tensor([[-2.0, -99.0], [0.0, 0.0]])
    values = losses.values(batch([[-1.0, -1.0], [-1.0, math.nan]], response_mask_NT=mask, blind_log_probs_NT=blind))
    assert values["mine"].tolist() == [[-3.0, -3.0], [-3.0, 0.0]]  # what does not count may be anything
    assert values["papo"][0].tolist() == pytest.approx([-math.exp(-1), -1.0])


def test_a_term_is_given_what_it_declares_and_no_more(tmp_path):
    body = "assert batch.entropy_NT is None and batch.image_mass_NTL is None and batch.blind_entropy_NT is None\n"
    losses = ActorLossSet([declared(tmp_path, body + "    return batch.blind_log_probs_NT", '("blind",)')])
    ones = torch.ones(1, 2)
    everything = {"entropy_NT": ones, "blind_entropy_NT": ones, "image_mass_NTL": torch.ones(1, 2, 3)}
    assert losses.values(batch([[0.0, 0.0]], blind_log_probs_NT=ones, **everything))["mine"].tolist() == [[1.0, 1.0]]
    with pytest.raises(RuntimeError, match=r"the actor loss mine .*needs blind_log_probs_NT, which .* did not give"):
        losses.values(batch([[0.0, 0.0]]))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (
            "return batch.log_probs_NT.mean()",
            r"returned torch.float32 \(\); wanted is a float tensor \(1, 2\) or \(1,\)",
        ),
        ("return batch.log_probs_NT.T", r"returned torch.float32 \(2, 1\)"),
        ("return batch.has_image_N", r"returned torch.bool \(1,\)"),
        ("return 1.0", r"returned 1.0; wanted"),
        ("return batch.log_probs_NT / 0", "returned 2 numbers that are not finite, of 2"),
        ("return batch.nothing", "failed: AttributeError: 'LossBatch' object has no attribute 'nothing'"),
    ],
)
def test_a_fault_of_a_term_names_it(tmp_path, body, fault):
    with pytest.raises(RuntimeError, match=rf"the actor loss mine \(.*term_0.py:6\) {fault}"):
        ActorLossSet([declared(tmp_path, body)]).values(batch([[-1.0, 0.0]]))


def test_terms_that_no_recipe_can_have():
    with pytest.raises(ValueError, match="unknown key avar.losses.papo.gamma; papo .* takes blind_gradient, clip"):
        ActorLossSet(parse_losses({"papo": {"weight": 1.0, "gamma": 0.1}}))
    with pytest.raises(ValueError, match="avar.losses.papo.clip"):
        ActorLossSet(parse_losses({"papo": {"weight": 1.0, "clip": -1.0}}))
    with pytest.raises(ValueError, match="avar.losses.evidence.of"):
        ActorLossSet(parse_losses({"evidence": {"weight": 1.0, "of": "text"}}))
    with pytest.raises(ValueError, match="avar.losses.papo.weight"):
        parse_losses({"papo": -0.01})
