"""What the trainer asks of the actor for a blind pass (here a list, no worker group), and masked micro-batches."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import NonTensorData, TensorDict

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from transfer_queue import KVBatchMeta  # noqa: E402
from verl.trainer.ppo import v1  # noqa: E402, F401 (verl's trainers, beside which ours are imported)

from avar_rl.blind import BlindSettings, PatchFormat  # noqa: E402
from avar_rl.verl_plugin.config.settings import AttentionSettings, GRPOSettings  # noqa: E402
from avar_rl.verl_plugin.forward.blind import blind_outputs, blinded, images_per_row  # noqa: E402
from avar_rl.verl_plugin.forward.request import REQUEST, ForwardRequest, update_request  # noqa: E402
from avar_rl.verl_plugin.grpo.guard import CHECKED_STEPS  # noqa: E402
from avar_rl.verl_plugin.grpo.stoppable import StoppableTrainer  # noqa: E402
from avar_rl.verl_plugin.grpo.trainer import AnchoredGRPOTrainer  # noqa: E402

BATCH = KVBatchMeta(
    ["a", "b"],
    [{}, {"is_padding": True}],
    partition_id="train",
    fields=["input_ids", "image_mass", "system_mass", "old_log_probs"],
)  # as a put to the queue gives it, after verl's own pass: without what that pass was told


@pytest.fixture
def asked(monkeypatch):
    """A function: settings -> what the actor is asked for beside verl's own pass, the batch after it, and metrics."""
    monkeypatch.setattr(StoppableTrainer, "_compute_old_log_prob", lambda self, batch, metrics: batch)

    def step(settings: GRPOSettings) -> tuple[list[KVBatchMeta], KVBatchMeta, dict]:
        trainer: Any = object.__new__(AnchoredGRPOTrainer)
        calls: list[KVBatchMeta] = []
        trainer.settings, trainer._agreements = settings, CHECKED_STEPS
        trainer.config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"temperature": 0.7}}})
        trainer.signal = SimpleNamespace(needs=settings.step_needs())
        trainer.update_request = update_request(settings)
        trainer.actor_rollout_wg = SimpleNamespace(compute_log_prob=calls.append)
        metrics: dict = {}
        return calls, trainer._compute_old_log_prob(BATCH, metrics), metrics

    return step


def test_the_blind_pass_is_over_the_same_rows_and_leaves_the_batch_as_it_is(asked):
    blind = BlindSettings(share=0.5)
    (call,), after, metrics = asked(GRPOSettings(blind=blind, attention=AttentionSettings(measure=True)))
    assert call.keys == ["a", "b"] and call.fields == ["input_ids", "old_log_probs"]  # fillers too; no masses
    told = {"temperature": 0.7, "calculate_entropy": False, "compute_loss": False}
    assert call.extra_info == {**told, REQUEST: ForwardRequest(blind=blind)}  # and no recording
    assert after is BATCH and BATCH.extra_info == {}
    assert BATCH.fields is not None and "image_mass" in BATCH.fields and metrics["timing_s/blind_log_prob"] >= 0


def test_without_settings_there_is_no_second_pass(asked):
    calls, after, metrics = asked(GRPOSettings())
    assert calls == [] and after is BATCH and metrics == {}


# One colour, patches of one pixel: a row of pixel_values is a patch. Image tokens are single patches.
FORMAT = PatchFormat(black=(-1.0,), merge_size=1)
GRID = torch.tensor([[1, 2, 2]])


def micro_batch(*rows: tuple[list[int], Any]) -> TensorDict:
    ids = torch.nested.as_nested_tensor([torch.tensor(ids) for ids, _ in rows], layout=torch.jagged)
    images = torch.stack([NonTensorData(inputs) for _, inputs in rows])
    return TensorDict({"input_ids": ids, "multi_modal_inputs": images}, batch_size=len(rows))


def test_rows_of_every_kind_are_counted():
    two = {"image_grid_thw": GRID.expand(2, 3), "pixel_values": torch.ones(8, 1)}
    batch = micro_batch(([1, 2], two), ([3], {}), ([4], None), ([5], {"image_grid_thw": None}))
    assert images_per_row(batch["multi_modal_inputs"]) == [2, 0, 0, 0]


def test_each_row_is_masked_by_its_own_tokens():
    image = {"image_grid_thw": GRID, "pixel_values": torch.ones(4, 1)}
    settings = BlindSettings(share=0.5)

    def masked(*rows) -> list[float]:
        count = sum(bool(images) for _, images in rows)
        inputs = {"pixel_values": torch.ones(4 * count, 1), "image_grid_thw": GRID.expand(count, 3), "input_ids": 0}
        found = blinded(inputs, micro_batch(*rows), settings, FORMAT)
        assert bool((inputs["pixel_values"] == 1).all()) and found["input_ids"] == 0  # nothing is changed in place
        return found["pixel_values"][:, 0].tolist()

    first, text, second = ([1, 2, 3], image), ([7], {}), ([9, 9], image)
    alone = masked(first), masked(second)
    assert sorted(alone[0]) == sorted(alone[1]) == [-1.0, -1.0, 1.0, 1.0]
    assert masked(first, text, second) == alone[0] + alone[1] and masked(second, first) == alone[1] + alone[0]
    patterns = {tuple(masked(([1, 2, last], image))) for last in range(20)}
    assert len(patterns) > 1  # another response, other patches


def test_a_micro_batch_without_images_is_left_alone():
    inputs = {"input_ids": 0}
    assert blinded(inputs, micro_batch(([1], {}), ([2], {})), BlindSettings(), FORMAT) == inputs


def test_blind_log_probabilities_are_the_responses_under_a_name_of_their_own():
    """The number at a token is the next one's: of 5 tokens with 2 of response, those at places 2 and 3."""
    rows = [torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), torch.tensor([5.0, 6.0, 7.0])]
    masks = [torch.tensor([1, 0]), torch.tensor([1])]
    nested = [torch.nested.as_nested_tensor(column, layout=torch.jagged) for column in (rows, masks)]
    found = blind_outputs({"log_probs": nested[0]}, TensorDict({"response_mask": nested[1]}, batch_size=2))
    assert found.keys() == {"blind_log_probs"}
    assert [row.tolist() for row in found["blind_log_probs"].unbind()] == [[2.0, 3.0], [6.0]]
