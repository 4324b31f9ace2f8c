"""From what verl carried back about a step's responses to a `ScoredBatch`: masses, attention rewards, totals.

Shapes: B responses, T response tokens, L recorded layers.
"""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from avar_rl.verl_plugin.grpo.reward_manager import SAMPLE_KEY
from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse
from rewards.combine import RewardError, RewardSet, Values
from rewards.sample import AttentionSample, Masses


@dataclass(frozen=True)
class Arrived:
    """One response as the rollout and the actor's forward pass leave it; T tokens, those of tools included."""

    key: str
    uid: str
    response: str
    token_ids_T: Tensor
    mask_T: Tensor  # bool: the tokens that the policy wrote
    extra_fields: dict[str, Any]  # verl's
    image_mass_TL: Tensor | None = None
    system_mass_TL: Tensor | None = None


def score(
    arrived: Sequence[Arrived], rewards: RewardSet, *, step: int, on_error: str = "stop", limit: int | None = None
) -> ScoredBatch:
    """Scores the attention rewards, combines all parts and marks what takes no part in the advantages.

    Args:
        on_error: "stop" raises where a reward failed; "mask" leaves its response out.
        limit: tokens at which a response is cut.

    Raises:
        RewardError: a reward failed (reward, row and traceback in its text).
        RuntimeError: a response was not scored by our reward manager, or nothing was recorded.
    """
    facts = [_facts(response) for response in arrived]
    values = [Values(fact["raw"], frozenset(fact["closed"])) for fact in facts]
    errors = [fact["error"] for fact in facts]
    masses: list[Masses | None] = [None] * len(arrived)
    if rewards.needs_attention:
        masses = [_masses(response) for response in arrived]
        _require_masses(masses)
        samples = _attention_samples(arrived, facts, masses, limit)
        values, errors = _score_attention(rewards, samples, values, errors)
    if on_error == "stop" and (failed := [error for error in errors if error]):
        raise RewardError(f"{len(failed)} responses of step {step} could not be scored; the first:\n{failed[0]}")
    rows = zip(arrived, facts, values, errors, masses, strict=True)
    layers = masses[0].image_TL.shape[1] if masses and masses[0] is not None else 0
    return ScoredBatch(step, tuple(_scored(*row, rewards) for row in rows), rewards.weights, rewards.gates, layers)


def _facts(response: Arrived) -> dict[str, Any]:
    info = response.extra_fields.get("reward_extra_info") or {}
    if SAMPLE_KEY not in info:
        raise RuntimeError(
            f"response {response.key} was not scored by avar_rl's reward manager: reward.reward_manager must be ours "
            "(see recipes/config/grpo.yaml)"
        )
    return json.loads(info[SAMPLE_KEY])


def _masses(response: Arrived) -> Masses:
    return Masses(response.image_mass_TL[response.mask_T], response.system_mass_TL[response.mask_T])


def _require_masses(masses: Sequence[Masses]) -> None:
    if masses and not any(bool((mass.system_TL > 0).any()) for mass in masses):
        raise RuntimeError("the actor's forward recorded no span masses at all; attention rewards would be constants")


def _attention_samples(arrived, facts, masses, limit: int | None) -> list[AttentionSample]:
    groups: dict[str, list[int]] = {}
    for i, response in enumerate(arrived):
        groups.setdefault(response.uid, []).append(i)
    return [
        AttentionSample(
            question=fact["question"],
            response=response.response,
            gold=fact["gold"],
            row=fact["row"],
            row_id=fact["row_id"],
            options=tuple(fact["options"]),
            image_sizes=_sizes(fact),
            response_tokens=len(response.token_ids_T),
            max_response_tokens=limit,
            masses=masses[i],
            group=tuple(masses[j] for j in groups[response.uid]),
            position=groups[response.uid].index(i),
        )
        for i, (response, fact) in enumerate(zip(arrived, facts, strict=True))
    ]


def _score_attention(rewards: RewardSet, samples, values, errors) -> tuple[list[Values], list[str]]:
    """Every attention reward of every response that has no error yet."""

    async def one(sample: AttentionSample, known: Values, error: str) -> tuple[Values, str]:
        if error:
            return known, error
        try:
            return await rewards.score_attention(sample, known), ""
        except RewardError as failure:
            return known, str(failure)

    async def every() -> list[tuple[Values, str]]:
        return await asyncio.gather(*(one(*row) for row in zip(samples, values, errors, strict=True)))

    with ThreadPoolExecutor(1) as thread:  # a loop of our own, whether or not the trainer runs in one
        found = thread.submit(asyncio.run, every()).result()
    return [value for value, _ in found], [error for _, error in found]


def _scored(
    response: Arrived, fact: dict, values: Values, error: str, masses: Masses | None, rewards: RewardSet
) -> ScoredResponse:
    combined = rewards.combine(values)
    undecided = "accuracy" in values.raw and values.raw["accuracy"] is None
    return ScoredResponse(
        key=response.key,
        uid=response.uid,
        row_id=fact["row_id"],
        row=fact["row"],
        question=fact["question"],
        gold=fact["gold"],
        image_sizes=_sizes(fact),
        token_ids_T=response.token_ids_T[response.mask_T],
        response=response.response,
        raw=values.raw,
        weighted=combined.weighted,
        closed=values.closed,
        total=combined.total,
        masked=bool(error) or undecided,
        error=error,
        image_mass_TL=None if masses is None else masses.image_TL,
        system_mass_TL=None if masses is None else masses.system_TL,
    )


def _sizes(fact: dict) -> tuple[tuple[int, int], ...]:
    return tuple((width, height) for width, height in fact["image_sizes"])


def unflatten(flat: Tensor, tokens: int) -> Tensor:
    """(T * L,) as the engine ships it -> (T, L)."""
    return torch.as_tensor(flat).reshape(tokens, -1)
