"""The text rewards, scored by verl's reward-loop workers while the rollout still runs."""

import json
import math
from typing import Any

import numpy as np
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from avar_rl.runtime.images import image_size
from avar_rl.verl_plugin.config.settings import GRPOSettings, parse
from rewards.combine import RewardError, Values
from rewards.sample import Sample, question_text, row_options

SAMPLE_KEY = "reward_sample"  # in reward_extra_info: what the trainer needs of the row, as JSON (verl skips text)

# What verl adds to a data row, or has turned into something else (the prompt, the gold).
_VERLS = frozenset(
    "raw_prompt prompt reward_model uid index agent_name global_steps session_id tools_kwargs interaction_kwargs "
    "dummy_tensor tool_extra_fields prompt_len response_len __num_turns__ validate".split()
)


class TextRewardManager(RewardManagerBase):
    """The text rewards of one response; attention rewards follow in the trainer, once the actor has run over it.

    A reward that fails is reported, not raised: verl replaces a prompt whose scoring raises by another one, quietly.
    The trainer stops, or masks the response (`avar.on_reward_error`); until then its score is NaN.
    """

    def __init__(self, config, tokenizer, compute_score=None, reward_router_address=None, reward_model_tokenizer=None):
        super().__init__(config, tokenizer, compute_score)
        self.rewards = parse(GRPOSettings, config).reward_set()
        self.limit = int(config.data.max_response_length)

    async def run_single(self, data: DataProto) -> dict:
        item = data[-1:][0]
        length = int(item.non_tensor_batch["response_len"])  # the batch is padded
        response = self.tokenizer.decode(item.batch["responses"][:length], skip_special_tokens=True)
        sample = _sample(item.non_tensor_batch, response, length, self.limit)
        try:
            values, error = await self.rewards.score_text(sample), ""
        except RewardError as failure:
            values, error = Values(), str(failure)
        score = math.nan if error else self.rewards.combine(values).total
        return {"reward_score": score, "reward_extra_info": _shipped(sample, values, error)}


def _sample(row: dict[str, Any], response: str, length: int, limit: int) -> Sample:
    messages = [_plain(message) for message in row["raw_prompt"]]
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    extra = _plain(row.get("extra_info")) or {}
    return Sample(
        question=question_text(messages),
        response=response,
        gold=str(row["reward_model"]["ground_truth"]),
        row={name: _plain(value) for name, value in row.items() if name not in _VERLS},
        row_id=str(extra.get("id") or extra.get("index", "")),
        options=row_options(extra),
        image_sizes=tuple(image_size(part) for part in parts if part.get("type") == "image"),
        response_tokens=length,
        max_response_tokens=limit,
    )


def _shipped(sample: Sample, values: Values, error: str) -> dict[str, Any]:
    """One number a text reward, for verl's group filter and validation, and the rest as JSON, for our trainer.

    An undecided accuracy is NaN, which never equals another one: the filter keeps such a group.
    """
    numbers = dict(values.raw)
    if error or numbers.get("accuracy", 0.0) is None:
        numbers["accuracy"] = math.nan
    facts = {"question": sample.question, "gold": sample.gold, "row": sample.row, "row_id": sample.row_id}
    facts |= {"options": sample.options, "image_sizes": sample.image_sizes}
    facts |= {"raw": values.raw, "closed": sorted(values.closed), "error": error}
    return {**numbers, SAMPLE_KEY: json.dumps(facts, default=str)}


def _plain(value: Any) -> Any:
    """Arrays and numbers of numpy, in which verl wraps a row, as Python's own."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
