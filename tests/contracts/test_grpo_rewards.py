"""From what verl carries back to scored responses and their totals, by hand."""

import json
import math

import numpy as np
import pytest
import torch

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from avar_rl.verl_plugin.grpo.reward_manager import SAMPLE_KEY, _sample, _shipped  # noqa: E402
from avar_rl.verl_plugin.grpo.scoring import Arrived, _attention_samples, score  # noqa: E402
from avar_rl.verl_plugin.watch.metrics import reward_metrics  # noqa: E402
from rewards.combine import RewardError, RewardSet, Values, parse_terms  # noqa: E402
from rewards.sample import Sample  # noqa: E402

SET = RewardSet(parse_terms({"accuracy": 1.0, "visual": {"weight": 0.3, "mode": "share"}, "format": 0.1}))
TEXT = RewardSet(parse_terms({"accuracy": 1.0, "format": 0.1}))


def info(values: Values, error: str = "", gold: str = "6") -> dict:
    sample = Sample("How many?", "", gold, {"data_source": "tiny"}, "row 3", image_sizes=((112, 112),))
    return {"reward_extra_info": _shipped(sample, values, error)}


def arrived(uid: str, values: Values, shares=(0.5, 0.5), mask=None, error: str = "", session: int = 0) -> Arrived:
    """A response whose tokens have these image shares in both of two layers; the system has the rest."""
    image = torch.tensor(shares)[:, None].expand(-1, 2)
    mask = torch.ones(len(shares), dtype=torch.bool) if mask is None else torch.tensor(mask).bool()
    ids = torch.arange(len(shares))
    return Arrived(f"{uid}_{session}_0", uid, "text", ids, mask, info(values, error), image, 1 - image)


RIGHT, WRONG = Values({"accuracy": 1.0, "format": 1.0}), Values({"accuracy": 0.0, "format": 1.0})


def test_a_row_of_verl_becomes_a_sample():
    picture = {"type": "image", "image": _picture(30, 20)}
    turn = {"role": "user", "content": [picture, {"type": "text", "text": "How many?"}]}
    row = {
        "raw_prompt": np.array([turn], dtype=object),
        "reward_model": {"style": "rule", "ground_truth": "6"},
        "extra_info": {"id": "train-7", "index": np.int64(7), "options": np.array(["red", "blue"], dtype=object)},
        "data_source": np.str_("tiny"),
        "difficulty": np.float64(0.5),  # a column of the user's own
        "uid": "u",
        "response_len": np.int64(3),
    }
    sample = _sample(row, "<answer>6</answer>", 3, 80)
    assert (sample.question, sample.gold, sample.row_id) == ("How many?", "6", "train-7")
    assert sample.image_sizes == ((30, 20),)
    assert (sample.response_tokens, sample.max_response_tokens) == (3, 80)
    assert sample.options == ("red", "blue")
    fact = json.loads(_shipped(sample, Values(), "")[SAMPLE_KEY])
    assert _attention_samples([arrived("a", RIGHT)], [fact], [None], 80)[0].options == ("red", "blue")
    extra = {"id": "train-7", "index": 7, "options": ["red", "blue"]}
    assert sample.row == {"data_source": "tiny", "difficulty": 0.5, "extra_info": extra}
    assert type(sample.row["difficulty"]) is float


def _picture(width: int, height: int):
    from PIL import Image

    return Image.new("RGB", (width, height))


def test_what_verl_reads_of_a_score_are_numbers_and_text():
    shipped = _shipped(Sample("q", "r", "6"), Values({"accuracy": 1.0, "format": 0.0}, frozenset({"format"})), "")
    assert (shipped["accuracy"], shipped["format"]) == (1.0, 0.0)
    assert json.loads(shipped[SAMPLE_KEY])["closed"] == ["format"]
    # undecided, or a reward failed: no number that could equal the others of the group
    assert math.isnan(_shipped(Sample("q", "r", "6"), Values({"accuracy": None}), "")["accuracy"])
    assert math.isnan(_shipped(Sample("q", "r", "6"), Values(), "it broke")["accuracy"])


def test_parts_are_combined_and_masses_are_those_of_the_policys_own_tokens():
    batch = score(
        [arrived("a", RIGHT, (0.4, 0.8, 0.9), mask=[1, 1, 0]), arrived("a", WRONG, (0.5, 0.5))], SET, step=4, limit=80
    )
    first, second = batch.responses
    assert (batch.step, batch.layers, batch.gates) == (4, 2, {"visual": "accuracy"})
    # (0.4 + 0.8) / 2; the third token is a tool's: 1 + 0.3 * 0.6 + 0.1
    assert first.raw["visual"] == pytest.approx(0.6) and first.total == pytest.approx(1.28)
    assert first.token_ids_T.tolist() == [0, 1] and first.image_mass_TL.shape == (2, 2)
    # wrong: the gate is closed; the ungated value is kept
    assert second.raw["visual"] == pytest.approx(0.5) and second.closed == {"visual"}
    assert second.total == pytest.approx(0.1) and second.weighted["visual"] == 0.0
    assert (first.row_id, first.gold, first.question, first.row) == ("row 3", "6", "How many?", {"data_source": "tiny"})
    assert first.image_sizes == ((112, 112),)


def test_rank_compares_within_the_group_only():
    ranked = RewardSet(parse_terms({"accuracy": 1.0, "visual": {"weight": 1.0, "mode": "rank"}}))
    rows = [arrived("a", RIGHT, (0.2,)), arrived("b", RIGHT, (0.9,)), arrived("a", RIGHT, (0.3,)), arrived("b", RIGHT)]
    assert [r.raw["visual"] for r in score(rows, ranked, step=1).responses] == [0.0, 1.0, 1.0, 0.0]


def test_without_attention_rewards_nothing_needs_masses():
    bare = Arrived("a_0_0", "a", "text", torch.arange(2), torch.ones(2).bool(), info(RIGHT))
    batch = score([bare], TEXT, step=1)
    assert batch.layers == 0 and batch.responses[0].image_mass_TL is None
    assert batch.responses[0].total == pytest.approx(1.1)


def test_a_response_that_our_manager_did_not_score_stops_training():
    bare = Arrived("a_0_0", "a", "text", torch.arange(2), torch.ones(2).bool(), {"reward_extra_info": {"acc": 1.0}})
    with pytest.raises(RuntimeError, match="a_0_0 was not scored by avar_rl's reward manager: reward.reward_manager"):
        score([bare], TEXT, step=1)


def test_a_recording_that_yields_nothing_stops_training():
    row = arrived("a", RIGHT)
    zero = torch.zeros(2, 2)
    bare = Arrived(row.key, "a", "text", row.token_ids_T, row.mask_T, row.extra_fields, zero, zero)
    with pytest.raises(RuntimeError, match="recorded no span masses at all"):
        score([bare], SET, step=1)


def test_a_failed_reward_stops_the_run_with_its_text_or_masks_its_response():
    rows = [arrived("a", RIGHT), arrived("a", Values(), error="Traceback …\nreward own failed on row 3: it broke")]
    with pytest.raises(RewardError) as error:
        score(rows, SET, step=2)
    assert str(error.value).startswith("1 responses of step 2 could not be scored")
    assert str(error.value).splitlines()[-1] == "reward own failed on row 3: it broke"
    right, failed = score(rows, SET, step=2, on_error="mask").responses
    assert failed.masked and "it broke" in failed.error and failed.total == 0.0
    assert not right.masked and right.total == pytest.approx(1.25)


def test_an_attention_reward_that_fails_is_treated_alike():
    broken = arrived("a", RIGHT, (0.5, math.nan))
    with pytest.raises(RewardError, match="reward visual failed on row row 3: ValueError: a token's visual score"):
        score([broken, arrived("a", RIGHT)], SET, step=1)
    batch = score([broken, arrived("a", RIGHT)], SET, step=1, on_error="mask")
    assert [response.masked for response in batch.responses] == [True, False]


def test_an_undecided_accuracy_is_masked_and_counted():
    rows = [arrived("a", RIGHT), arrived("a", Values({"accuracy": None, "format": 1.0})), arrived("a", WRONG)]
    batch = score(rows, SET, step=1)
    assert [response.masked for response in batch.responses] == [False, True, False]
    metrics = reward_metrics(batch)
    assert metrics["reward_rate/undecided"] == pytest.approx(1 / 3) and metrics["reward/accuracy"] == 0.5
    assert metrics["reward_rate/failed"] == 0.0
