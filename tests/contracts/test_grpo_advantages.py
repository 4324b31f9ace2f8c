"""From scored responses to advantages through verl's own computation; only its queue is a dictionary here."""

import functools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

import verl.trainer.ppo.v1.trainer_base as trainer_base  # noqa: E402
from transfer_queue import KVBatchMeta  # noqa: E402
from verl.utils.tensordict_utils import list_of_dict_to_tensordict  # noqa: E402

from avar_rl.verl_plugin.config import recipe, settings  # noqa: E402
from avar_rl.verl_plugin.grpo import queue as grpo_queue  # noqa: E402
from avar_rl.verl_plugin.grpo.advantage_step import Signal, compute_advantages  # noqa: E402
from avar_rl.verl_plugin.grpo.arrivals import MissingResponsesError  # noqa: E402
from avar_rl.verl_plugin.grpo.text_score import TEXT_SCORE, TextScore  # noqa: E402
from avar_rl.verl_plugin.grpo.weighing import weighed  # noqa: E402
from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse  # noqa: E402
from avar_rl.verl_plugin.watch.record import RolloutRecorder  # noqa: E402
from rewards.combine import RewardError, Score, Values  # noqa: E402
from rewards.sample import AttentionSample, Sample, Tokens  # noqa: E402
from rewards.weigh import TokenWeightError, TokenWeightSet, parse_weights  # noqa: E402

RIGHT, WRONG = Values({"accuracy": 1.0, "format": 1.0}), Values({"accuracy": 0.0, "format": 1.0})
UNDECIDED = Values({"accuracy": None, "format": 1.0})
IMAGE_START = 99


class Queue:
    """TransferQueue's two calls, in this process."""

    def __init__(self):
        self.rows: dict[str, dict] = {}

    def kv_batch_get(self, keys, partition_id, select_fields):
        rows = [{name: self.rows[key][name] for name in select_fields if name in self.rows[key]} for key in keys]
        batch = list_of_dict_to_tensordict(rows)
        for name in [name for name, value in rows[0].items() if isinstance(value, torch.Tensor)]:
            batch[name] = torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged)
        return batch

    def kv_batch_put(self, keys, partition_id, fields):
        for name in fields.keys():
            column = fields[name]
            values = column.unbind() if isinstance(column, torch.Tensor) else list(column)
            for key, value in zip(keys, values, strict=True):
                self.rows[key][name] = value
        return step_batch(keys)


def step_batch(keys: list[str]) -> KVBatchMeta:
    return KVBatchMeta(keys, [{"is_padding": key.startswith("pad")} for key in keys], partition_id="train")


@pytest.fixture
def queue() -> Queue:
    """Where verl's step and ours read and write."""
    return Queue()


@pytest.fixture
def advantages(queue, monkeypatch):
    """A function: overrides, responses (uid, values, image share, tokens, error, columns) -> their advantages, and
    metrics.

    Columns that are named replace those of every row.
    """
    verls_step: Any = trainer_base.PPOTrainer._compute_advantage  # of its trainer, it needs the configuration only
    monkeypatch.setattr(grpo_queue, "transfer_queue", queue)
    monkeypatch.setattr(trainer_base, "tq", queue)

    def compute(overrides: list[str], *responses: tuple, **changed: torch.Tensor) -> tuple[list[list[float]], dict]:
        config = recipe.load("recipes/config/tiny_grpo", ["avar.rollouts.dir=null", *overrides], stage="grpo")
        parsed = settings.parse(settings.GRPOSettings, config)
        keys = [f"{response[0]}_{i}_0" for i, response in enumerate(responses)]
        queue.rows = {key: row(*response) for key, response in zip(keys, responses, strict=True)}
        for changes in queue.rows.values():
            changes |= changed
        metrics: dict = {}
        signal = Signal(
            settings=parsed,
            rewards=parsed.reward_set(),
            weights=parsed.token_weight_set(),
            recorder=RolloutRecorder(parsed.rollouts),
            decode=lambda ids, **_: "text",
            image_start=IMAGE_START,
            by_std=config.algorithm.norm_adv_by_std_in_grpo,
        )
        verls = functools.partial(verls_step, SimpleNamespace(config=config))
        compute_advantages(step_batch(keys), metrics, signal, stock=verls, step=1)
        return [[round(v, 3) for v in queue.rows[key]["advantages"].tolist()] for key in keys], metrics

    return compute


def row(uid: str, values: Values, share: float, tokens: int, error: str = "", columns: Any = None) -> dict:
    sample = Sample("q", "", "6", row_id="7", image_sizes=((8, 8),))
    image, log_probs = torch.full((tokens * 4,), share), torch.zeros(tokens)
    scores = torch.zeros(tokens)
    scores[-1] = float("nan") if error else 0.0  # what the reward worker says of a response that it could not score
    return {
        "uid": uid,
        "prompts": torch.tensor([1, IMAGE_START, 2]),
        "responses": torch.arange(tokens),
        "response_mask": torch.ones(tokens, dtype=torch.long),
        "extra_fields": {"reward_extra_info": {TEXT_SCORE: TextScore(sample, values, error).to_json()}},
        "entropy": torch.zeros(tokens),
        "image_mass": image,
        "system_mass": 1 - image,
        "rm_scores": scores,
        "rollout_log_probs": log_probs,
        "old_log_probs": log_probs,
        "ref_log_prob": log_probs,
        **(columns or {}),
    }


def test_totals_with_the_visual_part_become_advantages(advantages):
    # 1 + 0.3 * 0.5 + 0.1 = 1.25; 1 + 0.3 * 0.7 + 0.1 = 1.31; wrong: 0.1 (gated). Mean 2.66 / 3; std is not divided by
    found, metrics = advantages([], ("a", RIGHT, 0.5, 3), ("a", RIGHT, 0.7, 2), ("a", WRONG, 0.7, 4))
    assert found == [[0.363] * 3, [0.423] * 2, [-0.787] * 4]
    assert metrics["reward/total"] == pytest.approx(2.66 / 3)


def test_a_masked_response_is_out_of_its_groups_mean(advantages):
    group = [("a", RIGHT, 0.5, 3), ("a", RIGHT, 0.7, 2), ("a", WRONG, 0.7, 4)]
    found, metrics = advantages([], *group, ("a", UNDECIDED, 0.5, 2))
    assert found == [[0.363] * 3, [0.423] * 2, [-0.787] * 4, [0.0] * 2]
    assert metrics["reward_rate/undecided"] == 0.25
    failed = ("a", Values(), 0.5, 2, "Traceback\nreward own failed on row 7")
    found, metrics = advantages(["avar.on_reward_error=mask"], *group, failed)
    assert found == [[0.363] * 3, [0.423] * 2, [-0.787] * 4, [0.0] * 2] and metrics["reward_rate/failed"] == 0.25
    with pytest.raises(RewardError, match="1 responses of step 1 could not be.*\n.*\nreward own failed on row 7"):
        advantages([], *group, failed)


def test_a_lone_response_gets_none_and_fillers_are_left_alone(advantages):
    lone = ("a", RIGHT, 0.5, 2), ("a", UNDECIDED, 0.5, 2)
    pair = ("b", RIGHT, 0.5, 2), ("b", WRONG, 0.5, 1)
    found, metrics = advantages([], *lone, *pair, ("pad", RIGHT, 0.9, 1))
    assert found[:2] == [[0.0, 0.0], [0.0, 0.0]]  # verl alone would give the first its reward, 1.25
    assert found[2:4] == [[0.575] * 2, [-0.575]]
    assert metrics["reward/accuracy"] == pytest.approx(2 / 3)  # the filler counts nowhere


def test_uniform_accuracy_is_masked_by_option(advantages):
    rows = [("a", RIGHT, 0.5, 1), ("a", RIGHT, 0.7, 1)]
    assert advantages([], *rows)[0] == [[-0.03], [0.03]]  # 0.3 * 0.2 / 2
    assert advantages(["avar.groups.mask_uniform_accuracy=true"], *rows)[0] == [[0.0], [0.0]]


def test_by_parts_the_scale_of_a_part_does_not_matter(advantages):
    rows = [("a", RIGHT, 0.5, 1), ("a", RIGHT, 0.7, 1), ("b", RIGHT, 0.5, 1), ("b", WRONG, 0.5, 1)]
    by_parts = ["avar.groups.normalise=parts", "algorithm.norm_adv_by_std_in_grpo=true", "avar.rewards.visual.weight=1"]
    found = advantages([*by_parts, "avar.rewards.visual.gate=null"], *rows)[0]
    assert found == [[-0.866], [0.866], [0.866], [-0.866]]  # see test_grpo_rewards.py; format has no spread


def test_without_attention_rewards_no_masses_are_asked_for(advantages):
    found, metrics = advantages(["avar.rewards.visual=0"], ("a", RIGHT, 0.5, 1), ("a", WRONG, 0.5, 1))
    assert found == [[0.5], [-0.5]] and "attention/image_mass" not in metrics and "reward/visual" not in metrics


BLIND = ["avar.blind={}", "~avar.rewards.visual", "~avar.rewards.format"]
BLIND += ["+avar.rewards.dependence={weight: 0.5, gate: null}"]


def test_dependence_is_what_a_response_loses_by_masked_images(advantages):
    rows = [("a", RIGHT, 0.5, 2), ("a", WRONG, 0.5, 2)]
    # the old log-probabilities are 0: d = 0.5, and 3, which counts 1: 0.5 * 0.75 = 0.375 beside accuracy
    found, metrics = advantages(BLIND, *rows, blind_log_probs=torch.tensor([-0.5, -3.0]))
    assert found == [[0.5] * 2, [-0.5] * 2]  # of 1.375 and 0.375
    assert metrics["reward_raw/dependence/mean"] == 0.75 and metrics["blind/dependence"] == 1.75
    assert metrics["blind/not_applicable"] == 0.0 and metrics["blind/dependence_middle"] == 3.0


def test_blind_log_probabilities_that_are_missing_or_no_numbers_stop_the_step(advantages):
    rows = [("a", RIGHT, 0.5, 2), ("a", WRONG, 0.5, 2)]
    for values in ([-0.5], [-0.5, float("nan")]):
        with pytest.raises(
            MissingResponsesError, match="^2 of the 2 responses of step 1.*all of their blind_log_probs"
        ):
            advantages(BLIND, *rows, blind_log_probs=torch.tensor(values))


def test_without_a_blind_pass_nothing_of_it_is_read(advantages):
    _, metrics = advantages([], ("a", RIGHT, 0.5, 1), blind_log_probs=torch.tensor([float("nan")]))
    assert not [name for name in metrics if name.startswith("blind/")]


GROUP = [("a", RIGHT, 0.5, 3), ("a", RIGHT, 0.7, 2), ("a", WRONG, 0.7, 4)]  # 0.363, 0.423, -0.787: see above


def uncertain(response: tuple, *entropies: float, **columns) -> tuple:
    return (*response, "", {"entropy": torch.tensor(entropies), **columns})


def written(folder, body: str) -> str:
    """The setting that adds the token weight `own` with this body."""
    path = folder / f"own_{abs(hash(body))}.py"
    path.write_text(
        "import torch\nfrom rewards.plugin import token_weight\nfrom rewards.sample import AttentionSample\n"
        f"@token_weight\ndef own(sample: AttentionSample):\n    {body}\n"
    )
    return f"+avar.token_weights.own={{path: {path}}}"


def test_token_weights_multiply_the_advantages_of_the_policys_own_tokens(advantages, tmp_path):
    mask = {"response_mask": torch.tensor([1, 0, 1, 1])}  # the second token is a tool's
    rows = [
        uncertain(GROUP[0], 0.1, 0.3, 0.2),
        uncertain(GROUP[1], 0.5, 0.4),
        uncertain(GROUP[2], 0.1, 9.0, 0.6, 0.1, **mask),
        ("pad", RIGHT, 0.9, 1),
    ]
    # of 3 + 2 + 3 tokens 0.3 * 8, rounded up: 0.5, 0.4 and 0.6
    found, metrics = advantages(["+avar.token_weights.entropy_top={share: 0.3}"], *rows)
    assert found[:3] == [[0.0] * 3, [0.423] * 2, [0.0, 0.0, -0.787, 0.0]]
    assert metrics["token_weight/share"] == metrics["token_weight/entropy_top/mean"] == 3 / 8
    assert metrics["token_weight/failed"] == 0.0 and metrics["token_weight/mean"] == 3 / 8
    scaled = "+avar.token_weights.entropy_top={share: 0.3, normalise: batch}"
    found, metrics = advantages([scaled, written(tmp_path, "return sample.tokens.entropy_T * 2")], *rows)
    # 8 / 3 times twice the entropy, of the sum before it is rounded
    assert found[1] == pytest.approx([0.42333 * 8 / 3, 0.42333 * 8 / 3 * 0.8], abs=1e-3)
    assert metrics["token_weight/own/share"] == 1.0 and metrics["token_weight/share"] == 3 / 8
    assert metrics["token_weight/mean"] == pytest.approx(8 / 3 * 2 * (0.5 + 0.4 + 0.6) / 8)


def test_a_token_that_the_policy_did_not_write_keeps_its_advantage():
    """verl gives it 0; whatever it is, no weight touches it."""
    weights = TokenWeightSet(parse_weights({"entropy_top": {"share": 0.5}}))
    sample = AttentionSample("q", "r", "6", tokens=Tokens(torch.zeros(2), torch.tensor([0.1, 0.2])))
    response = ScoredResponse("a_0_0", "a", sample, torch.arange(2), RIGHT, Score(1.1, {}))
    batch = ScoredBatch(1, (response, replace(response, masked=True)))
    rows, mask_T = [torch.full((3,), 0.5), torch.zeros(3)], torch.tensor([True, False, True])
    found, scored, _ = weighed(rows, [mask_T, mask_T], batch, weights, "stop")
    assert found[0].tolist() == [0.0, 0.5, 0.5] and rows[0].tolist() == [0.5] * 3  # in a tensor of its own
    first, second = scored.responses
    assert first.weights_T is not None and first.weights_T.tolist() == [0.0, 1.0]
    assert found[1] is rows[1] and second.weights_T is None  # no weight was asked


def test_factors_of_one_change_no_bit(advantages, queue, tmp_path):
    def bits() -> list[torch.Tensor]:
        return [queue.rows[key]["advantages"] for key in queue.rows]

    advantages([], *GROUP)
    plain = bits()
    ones = "return torch.full_like(sample.tokens.entropy_T, 0.3)"
    overrides = [
        ["+avar.token_weights.attention_top={share: 1.0}"],
        [written(tmp_path, "return torch.ones_like(sample.tokens.entropy_T)")],
        [written(tmp_path, ones), "+avar.token_weights.own.normalise=response"],
        [
            written(tmp_path, ones),
            "+avar.token_weights.own.normalise=batch",
            "+avar.token_weights.attention_top={share: 1}",
        ],
    ]
    for setting in overrides:
        _, metrics = advantages(setting, *GROUP)
        assert all(map(torch.equal, bits(), plain)) and metrics["token_weight/mean"] == 1.0


def test_without_token_weights_nothing_is_measured(advantages):
    _, metrics = advantages([], *GROUP)
    assert not [name for name in metrics if "token_weight" in name]


def test_a_weight_sees_the_responses_advantage_and_its_rewards(advantages, tmp_path):
    right = written(tmp_path, "return sample.tokens.entropy_T + sample.parts['accuracy'] + 2 * (sample.advantage < 0)")
    found, _ = advantages([right], *GROUP)
    assert found == [[0.363] * 3, [0.423] * 2, [pytest.approx(-1.573)] * 4]


def test_a_weight_that_fails_stops_the_run_or_leaves_its_response_out(advantages, tmp_path):
    bad = written(tmp_path, "return sample.tokens.entropy_T + (1.0 if sample.parts['accuracy'] else float('nan'))")
    with pytest.raises(TokenWeightError) as error:
        advantages([bad], *GROUP)
    first, second = str(error.value).splitlines()
    assert first == "1 responses of step 1 could not be weighted; the first:"
    assert second.startswith("token weight own failed on row 7: ValueError: it returned nan for token 0; a factor")
    found, metrics = advantages([bad, "avar.on_reward_error=mask"], *GROUP)
    assert found == [[0.363] * 3, [0.423] * 2, [0.0] * 4]  # its reward has counted in the group's mean
    assert metrics["token_weight/failed"] == pytest.approx(1 / 3) and metrics["reward_rate/failed"] == 0.0


def test_a_masked_response_is_not_weighed(advantages, tmp_path):
    bad = written(tmp_path, "return sample.tokens.entropy_T + 1 / (sample.parts['accuracy'] is not None)")
    found, metrics = advantages([bad], *GROUP, ("a", UNDECIDED, 0.5, 2))
    assert found == [[0.363] * 3, [0.423] * 2, [-0.787] * 4, [0.0] * 2] and metrics["token_weight/failed"] == 0.0


def test_a_step_whose_tokens_all_have_the_factor_zero_stops(advantages, tmp_path):
    with pytest.raises(TokenWeightError, match="own is 0 for every token of the step, so nothing would be trained on"):
        advantages([written(tmp_path, "return sample.tokens.entropy_T"), "avar.on_reward_error=mask"], *GROUP)


def test_the_record_has_the_factors(advantages, monkeypatch):
    seen = []
    monkeypatch.setattr(RolloutRecorder, "write", lambda _, scored, *args: seen.append(scored))
    rows = [("a", RIGHT, 0.5, 3), ("a", WRONG, 0.5, 2), ("b", UNDECIDED, 0.5, 1)]
    advantages(["+avar.token_weights.attention_top={share: 0.4}"], *rows)
    first, second, masked = seen[0].responses
    assert (first.weights_T.tolist(), second.weights_T.tolist(), masked.weights_T) == (
        [1.0, 1.0, 0.0],
        [1.0, 0.0],
        None,
    )


def test_a_token_weight_alone_asks_for_masses():
    overrides = ["avar.rewards.visual=0", "+avar.token_weights.attention_top={}"]
    config = recipe.load("recipes/config/tiny_grpo", overrides, stage="grpo")
    assert settings.parse(settings.GRPOSettings, config).needs_masses()
