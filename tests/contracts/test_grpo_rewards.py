"""From what verl carries back to scored responses and their totals, by hand."""

import asyncio
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

from verl import DataProto  # noqa: E402

from avar_rl.verl_plugin.config import recipe  # noqa: E402
from avar_rl.verl_plugin.grpo.reward_manager import TextRewardManager, score_row  # noqa: E402
from avar_rl.verl_plugin.grpo.scoring import Arrived, score  # noqa: E402
from avar_rl.verl_plugin.grpo.text_score import TEXT_SCORE, TextScore  # noqa: E402
from avar_rl.verl_plugin.watch.metrics import reward_metrics  # noqa: E402
from data_tools.miniature.model import CHAT_TEMPLATE, make_tokenizer  # noqa: E402
from rewards.combine import RewardError, RewardSet, Values, parse_terms  # noqa: E402
from rewards.sample import AttentionSample, Masses, Sample, Tokens  # noqa: E402

SET = RewardSet(parse_terms({"accuracy": 1.0, "visual": {"weight": 0.3, "mode": "share"}, "format": 0.1}))
TEXT = RewardSet(parse_terms({"accuracy": 1.0, "format": 0.1}))


def info(values: Values, error: str = "", gold: str = "6") -> dict:
    sample = Sample("How many?", "", gold, {"data_source": "tiny"}, "row 3", image_sizes=((112, 112),))
    return {"reward_extra_info": {TEXT_SCORE: TextScore(sample, values, error).to_json()}}


def tokens(count: int) -> Tokens:
    """The token at place i has log-probability -i and entropy i / 2."""
    return Tokens(-torch.arange(count).float(), torch.arange(count) / 2)


def arrived(uid: str, values: Values, shares=(0.5, 0.5), mask=None, error: str = "", session: int = 0) -> Arrived:
    """A response whose tokens have these image shares in both of two layers; the system has the rest."""
    image = torch.tensor(shares)[:, None].expand(-1, 2)
    mask = torch.ones(len(shares), dtype=torch.bool) if mask is None else torch.tensor(mask).bool()
    ids = torch.arange(len(shares))
    return Arrived(
        f"{uid}_{session}_0", uid, "text", ids, mask, info(values, error), tokens(len(ids)), Masses(image, 1 - image)
    )


RIGHT, WRONG = Values({"accuracy": 1.0, "format": 1.0}), Values({"accuracy": 0.0, "format": 1.0})


ROW = {
    "raw_prompt": np.array(
        [
            {"role": "system", "content": "Think."},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]},
        ],
        dtype=object,
    ),
    "reward_model": {"style": "rule", "ground_truth": "6"},
    "extra_info": {"id": "train-7", "index": np.int64(7), "options": np.array(["red", "blue"], dtype=object)},
    "data_source": np.str_("tiny"),
    "difficulty": np.float64(0.5),  # a column of the user's own
    "uid": "u",
    "response_len": np.int64(3),
}


def row(**changes) -> dict:
    """A row as verl hands it over, with one image of 30 x 20 pixels."""
    picture = {"type": "image", "image": Image.new("RGB", (30, 20))}
    turn = {"role": "user", "content": [picture, {"type": "text", "text": "How many?"}]}
    return ROW | {"raw_prompt": np.array([turn], dtype=object)} | changes


def scored_row(row: dict) -> TextScore:
    return asyncio.run(score_row(row, "<answer>6</answer>", TEXT, length=3, limit=80))


def test_a_row_of_verl_becomes_a_sample():
    scored = scored_row(row())
    sample = scored.sample
    assert (sample.question, sample.gold, sample.row_id) == ("How many?", "6", "train-7")
    assert sample.image_sizes == ((30, 20),) and sample.options == ("red", "blue")
    assert (sample.response_tokens, sample.max_response_tokens) == (3, 80)
    extra = {"id": "train-7", "index": 7, "options": ["red", "blue"]}
    assert sample.row == {"data_source": "tiny", "difficulty": 0.5, "extra_info": extra}
    assert type(sample.row["difficulty"]) is float
    assert scored.values.raw["accuracy"] == 1.0 and not scored.error


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"extra_info": {"id": "bad-1", "options": "A or B"}},
            "row bad-1 cannot be scored: extra_info.options is",
        ),
        ({"extra_info": {"options": [1, 2]}}, r"row \(no id\) cannot be scored: extra_info.options is \[1, 2\]"),
        ({"raw_prompt": ROW["raw_prompt"]}, "row train-7 cannot be scored: an image is neither bytes nor the path"),
    ],
)
def test_a_row_that_cannot_be_scored_ends_like_a_failed_reward(changes, expected):
    """Raised in the reward worker, verl would quietly put another prompt in its place."""
    scored = scored_row(row(**changes))
    with pytest.raises(RewardError, match=f"1 responses of step 5 could not be scored; the first:\n{expected}"):
        score([arrived("a", RIGHT), with_score("a_1_0", scored)], TEXT, step=5)
    masked = score([arrived("a", RIGHT), with_score("a_1_0", scored)], TEXT, step=5, on_error="mask").responses[1]
    assert masked.masked and masked.total == 0.0


class Letters:
    """A tokenizer whose ids are code points."""

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids.tolist()))


@pytest.mark.parametrize("opened", ["<think>\n", ""])
def test_the_manager_scores_the_last_trajectory_without_its_padding(opened):
    text = "so</think><answer>6</answer>"
    ids = torch.zeros(2, 30, dtype=torch.long)
    ids[1, : len(text)] = torch.tensor([ord(letter) for letter in text])
    prompt = f"<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n{opened}"
    prompts = torch.zeros(2, 100, dtype=torch.long)
    prompts[1, : len(prompt)] = torch.tensor([ord(letter) for letter in prompt])
    lengths = {"response_len": np.int64(len(text)), "prompt_len": np.int64(len(prompt))}
    rows = [row(response_len=1, prompt_len=1), row(**lengths)]
    columns = {name: np.array([one[name] for one in rows] + [None], dtype=object)[:2] for name in rows[0]}
    config = recipe.load("recipes/config/tiny_grpo", ["avar.rewards.format=0.5"], stage="grpo")
    manager = TextRewardManager(config, Letters())
    found = asyncio.run(
        manager.run_single(DataProto.from_dict({"responses": ids, "prompts": prompts}, non_tensors=columns))
    )
    # accuracy 1 + 0.5 x format (0 or 1); what it says of the rewards is what the total is made of
    info = found["reward_extra_info"]
    assert info["accuracy"] == 1.0 and found["reward_score"] == 1.0 + 0.5 * info["format"]
    assert info["format"] == float(bool(opened))  # an opening tag of the chat template counts
    scored = TextScore.from_json(info[TEXT_SCORE])
    assert scored.values.raw == {"accuracy": 1.0, "format": info["format"]} and scored.sample.row_id == "train-7"
    assert (scored.sample.response_tokens, scored.sample.max_response_tokens) == (len(text), 80)
    assert scored.sample.prefill == opened


@pytest.mark.parametrize(("opened", "said"), [("<think>\n", ""), ("<think>\n\n", ""), ("", "<think>")])
def test_a_rendered_prompt_that_opens_the_thought_completes_the_response(opened, said):
    """From the chat template through the tokenizer and verl's padding to the format reward."""
    text = f"{said}six of them</think><answer>6</answer>"
    tokenizer = make_tokenizer([text, "How many?"] * 5)
    header = "<|im_start|>assistant\n"
    assert CHAT_TEMPLATE.count(header) == 1
    tokenizer.chat_template = CHAT_TEMPLATE.replace(header, header + opened)
    turns = [{"role": "user", "content": "How many?"}]
    rendered = str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
    prompt, response = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (rendered, text))
    prompts, responses = torch.zeros(1, 200, dtype=torch.long), torch.zeros(1, 200, dtype=torch.long)
    prompts[0, : len(prompt)], responses[0, : len(response)] = torch.tensor(prompt), torch.tensor(response)
    columns = row(response_len=np.int64(len(response)), prompt_len=np.int64(len(prompt)))
    batch = DataProto.from_dict(
        {"responses": responses, "prompts": prompts},
        non_tensors={name: np.array([value, None], dtype=object)[:1] for name, value in columns.items()},
    )
    config = recipe.load("recipes/config/tiny_grpo", ["avar.rewards.format=0.5"], stage="grpo")
    found = asyncio.run(TextRewardManager(config, tokenizer).run_single(batch))["reward_extra_info"]
    assert (found["accuracy"], found["format"]) == (1.0, 1.0)
    assert TextScore.from_json(found[TEXT_SCORE]).sample.prefill == opened


def with_score(key: str, scored: TextScore) -> Arrived:
    fields = {"reward_extra_info": {**scored.numbers(), TEXT_SCORE: scored.to_json()}}
    return Arrived(key, key[0], "text", torch.arange(2), torch.ones(2).bool(), fields, tokens(2))


def test_what_the_reward_worker_says_arrives_but_for_the_text_which_is_each_responses_own():
    known = {"options": ("red", "blue"), "prefill": "<think>\n"}
    sample = Sample("q", "r", "6", {"data_source": "tiny"}, "row 3", ((30, 20), (8, 8)), 3, 80, **known)
    said = TextScore(sample, Values({"accuracy": 1.0, "own": None}, frozenset({"own"})), "")
    assert TextScore.from_json(said.to_json()) == replace(said, sample=replace(sample, response=""))
    (response,) = score([with_score("a_0_0", said)], TEXT, step=1).responses
    seen = response.sample
    assert seen.tokens and seen.tokens.log_probs_T.tolist() == [0, -1] and seen.tokens.entropy_T.tolist() == [0, 0.5]
    assert Sample(**{f.name: getattr(seen, f.name) for f in fields(Sample)}) == replace(
        sample, response="text", response_tokens=2
    )
    assert response.values == said.values


def test_attention_rewards_see_the_sample_and_its_group(monkeypatch):
    seen: list[AttentionSample] = []

    async def look(sample: AttentionSample, values: Values) -> Values:
        seen.append(sample)
        return values

    monkeypatch.setattr(SET, "score_attention", look)
    score([arrived("a", RIGHT, (0.2,)), arrived("b", RIGHT), arrived("a", WRONG, (0.3,))], SET, step=1)
    assert [(sample.position, len(sample.group)) for sample in seen] == [(0, 2), (0, 1), (1, 2)]
    assert seen[2].group[0] is seen[0].masses and seen[0].question == "How many?" and seen[0].row_id == "row 3"


def test_what_verl_reads_of_a_score_are_numbers():
    values = Values({"accuracy": 1.0, "format": 0.0}, frozenset({"format"}))
    assert TextScore(Sample("q", "r", "6"), values).numbers() == {"accuracy": 1.0, "format": 0.0}
    # undecided, or a reward failed: no number that could equal the others of the group
    for values, error in ((Values({"accuracy": None}), ""), (Values(), "it broke")):
        assert str(TextScore(Sample("q", "r", "6"), values, error).numbers()) == "{'accuracy': nan}"


def test_dependence_is_of_the_policys_own_tokens_and_of_questions_with_an_image():
    seen = replace(tokens(3), dependence_T=torch.tensor([0.5, -0.25, 9.0]))
    row = replace(arrived("a", RIGHT, (0.5, 0.5, 0.5), mask=[1, 1, 0]), tokens=seen)
    text = TextScore(Sample("How many?", "", "6"), RIGHT).to_json()
    without = replace(row, key="a_1_0", extra_fields={"reward_extra_info": {TEXT_SCORE: text}})
    batch = score([row, without], TEXT, step=1)
    first, second = batch.responses
    assert batch.blind and first.dependence_T is not None and first.dependence_T.tolist() == [0.5, -0.25]
    assert second.dependence_T is None and second.sample.tokens is not None
    assert not score([arrived("a", RIGHT)], TEXT, step=1).blind


def test_parts_are_combined_and_masses_are_those_of_the_policys_own_tokens():
    batch = score([arrived("a", RIGHT, (0.4, 0.8, 0.9), mask=[1, 1, 0]), arrived("a", WRONG, (0.5, 0.5))], SET, step=4)
    first, second = batch.responses
    assert (batch.step, batch.layers, batch.gates) == (4, 2, {"visual": "accuracy"})
    # (0.4 + 0.8) / 2; the third token is a tool's: 1 + 0.3 * 0.6 + 0.1
    assert first.values.raw["visual"] == pytest.approx(0.6) and first.total == pytest.approx(1.28)
    assert first.token_ids_T.tolist() == [0, 1] and first.masses and first.masses.image_TL.shape == (2, 2)
    # wrong: the gate is closed; the ungated value is kept
    assert second.values.raw["visual"] == pytest.approx(0.5) and second.values.closed == {"visual"}
    assert second.total == pytest.approx(0.1) and second.score.weighted["visual"] == 0.0
    assert (first.sample.row_id, first.sample.gold, first.sample.image_sizes) == ("row 3", "6", ((112, 112),))


def test_rank_compares_within_the_group_only():
    ranked = RewardSet(parse_terms({"accuracy": 1.0, "visual": {"weight": 1.0, "mode": "rank"}}))
    rows = [arrived("a", RIGHT, (0.2,)), arrived("b", RIGHT, (0.9,)), arrived("a", RIGHT, (0.3,)), arrived("b", RIGHT)]
    assert [r.values.raw["visual"] for r in score(rows, ranked, step=1).responses] == [0.0, 1.0, 1.0, 0.0]


def test_without_attention_rewards_nothing_needs_masses():
    bare = Arrived("a_0_0", "a", "text", torch.arange(2), torch.ones(2).bool(), info(RIGHT), tokens(2))
    batch = score([bare], TEXT, step=1)
    assert batch.layers == 0 and batch.responses[0].masses is None
    assert batch.responses[0].total == pytest.approx(1.1)


def test_a_response_that_our_manager_did_not_score_stops_training():
    bare = Arrived(
        "a_0_0", "a", "text", torch.arange(2), torch.ones(2).bool(), {"reward_extra_info": {"acc": 1.0}}, tokens(2)
    )
    with pytest.raises(RuntimeError, match="a_0_0 was not scored by avar_rl's reward manager: reward.reward_manager"):
        score([bare], TEXT, step=1)


def test_a_recording_that_yields_nothing_stops_training():
    row = arrived("a", RIGHT)
    zero = replace(row, masses=Masses(torch.zeros(2, 2), torch.zeros(2, 2)))
    with pytest.raises(RuntimeError, match="recorded no span masses at all"):
        score([zero], SET, step=1)
    with pytest.raises(RuntimeError, match="recorded no span masses of response a_0_0"):
        score([replace(row, masses=None)], SET, step=1)


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
