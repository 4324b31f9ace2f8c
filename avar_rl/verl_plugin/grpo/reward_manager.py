"""The text rewards, scored by verl's reward-loop workers while the rollout still runs."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl.protocol import DataProtoItem

from avar_rl.runtime.images import image_size
from avar_rl.verl_plugin.config.settings import GRPOSettings, parse
from avar_rl.verl_plugin.grpo.text_score import TEXT_SCORE, TextScore
from rewards.combine import RewardError, RewardSet
from rewards.sample import Sample, prefill_of, question_text, row_options

_PROMPT_END = 64  # tokens of a prompt in which the header of the response's turn is looked for

# What verl adds to a data row, or has turned into something else (the prompt, the gold).
_VERLS = frozenset(
    "raw_prompt prompt reward_model uid index agent_name global_steps session_id tools_kwargs interaction_kwargs "
    "dummy_tensor tool_extra_fields prompt_len response_len __num_turns__ validate".split()
)


class TextRewardManager(RewardManagerBase):
    """The text rewards of one response; attention rewards follow in the trainer, once the actor has run over it.

    A reward that fails, or a row that cannot be scored, is reported and not raised: verl quietly replaces a prompt
    whose scoring raises by another one. The trainer stops, or masks the response (`avar.on_reward_error`); until then
    its score is NaN.
    """

    def __init__(self, config, tokenizer, compute_score=None, reward_router_address=None, reward_model_tokenizer=None):
        super().__init__(config, tokenizer, compute_score)
        self.rewards = parse(GRPOSettings, config).reward_set()
        self.limit = int(config.data.max_response_length)
        self.decode = tokenizer.decode

    async def run_single(self, data: DataProto) -> dict:
        item = _last(data)
        length = int(item.non_tensor_batch["response_len"])  # the batch is padded
        response = self.decode(item.batch["responses"][:length], skip_special_tokens=True)
        prompt_length = int(item.non_tensor_batch["prompt_len"])
        end = item.batch["prompts"][max(0, prompt_length - _PROMPT_END) : prompt_length]
        prefill = prefill_of(self.decode(end, skip_special_tokens=False))
        scored = await score_row(
            item.non_tensor_batch, response, self.rewards, length=length, limit=self.limit, prefill=prefill
        )
        total = math.nan if scored.error else self.rewards.combine(scored.values).total
        return {"reward_score": total, "reward_extra_info": {**scored.numbers(), TEXT_SCORE: scored.to_json()}}


def _last(data: DataProto) -> DataProtoItem:
    rows: Any = data[-1:]  # the trajectories of one session; verl scores the last
    return rows[0]


async def score_row(
    row: Mapping[str, Any], response: str, rewards: RewardSet, *, length: int, limit: int | None, prefill: str = ""
) -> TextScore:
    """The text rewards of the response to one data row, as verl hands it over.

    Args:
        row: the columns of the data row and what verl has added to them.
        response: decoded, without special tokens.
        length: of the response in tokens.
        limit: tokens at which a response is cut.
        prefill: what the chat template has written of the response.

    Returns a `TextScore` whose `error` says which reward failed, or what is wrong with the row.
    """
    sample = replace(_sample(row, response, length, limit), prefill=prefill)
    try:
        sample = _with_options_and_images(sample, row)
    except ValueError as error:
        return TextScore(sample, error=f"row {sample.row_id or '(no id)'} cannot be scored: {error}")
    try:
        return TextScore(sample, await rewards.score_text(sample))
    except RewardError as failure:
        return TextScore(sample, error=str(failure))


def _sample(row: Mapping[str, Any], response: str, length: int, limit: int | None) -> Sample:
    extra = _plain(row.get("extra_info")) or {}
    return Sample(
        question=question_text(_messages(row)),
        response=response,
        gold=str(row["reward_model"]["ground_truth"]),
        row={name: _plain(value) for name, value in row.items() if name not in _VERLS},
        row_id=str(extra.get("id") or extra.get("index", "")),
        response_tokens=length,
        max_response_tokens=limit,
    )


def _with_options_and_images(sample: Sample, row: Mapping[str, Any]) -> Sample:
    """ValueError: the row's options are no list of texts, or an image of the prompt cannot be read."""
    contents = [message["content"] for message in _messages(row) if not isinstance(message["content"], str)]
    images = [part for content in contents for part in content if part.get("type") == "image"]
    options = row_options(sample.row.get("extra_info"))
    return replace(sample, options=options, image_sizes=tuple(image_size(image) for image in images))


def _messages(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [_plain(message) for message in row["raw_prompt"]]


def _plain(value: Any) -> Any:
    """Arrays and numbers of numpy, in which verl wraps a row, as Python's own."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
