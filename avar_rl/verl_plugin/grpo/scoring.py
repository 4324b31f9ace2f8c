"""From what verl carried back about a step's responses to a `ScoredBatch`: masses, attention rewards, totals.

Shapes: T response tokens, L recorded layers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from avar_rl.verl_plugin.grpo.text_score import TEXT_SCORE, TextScore
from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse, undecided
from rewards.combine import RewardError, RewardSet
from rewards.finding import need_masses
from rewards.sample import AttentionSample, Masses, Tokens

Measured = TypeVar("Measured", Masses, Tokens)


@dataclass(frozen=True)
class Arrived:
    """One response as the rollout and the actor's forward pass leave it; T tokens, those of tools included.

    key, uid: verl's names of the response and of its prompt.
    response: the decoded text, without special tokens.
    mask_T: bool, the tokens that the policy wrote.
    extra_fields: verl's, with the reward worker's `TextScore` in them.
    tokens: of all T tokens.
    masses: of all T tokens; None where nothing was recorded.
    """

    key: str
    uid: str
    response: str
    token_ids_T: Tensor
    mask_T: Tensor
    extra_fields: Mapping[str, Any]
    tokens: Tokens
    masses: Masses | None = None


def score(arrived: Sequence[Arrived], rewards: RewardSet, *, step: int, on_error: str = "stop") -> ScoredBatch:
    """Scores the attention rewards, combines all parts and marks what takes no part in the advantages.

    Args:
        on_error: "stop" raises where a reward failed; "mask" leaves its response out.

    Raises:
        RewardError: a reward failed (reward, row and traceback in its text), or a row could not be scored.
        RuntimeError: a response was not scored by our reward manager, or nothing was recorded.
    """
    scores = [_text_score(response) for response in arrived]
    masses = _own_masses(arrived, need_masses(rewards.needs))
    samples = _attention_samples(arrived, scores, masses)
    if rewards.after_forward:
        scores = _score_attention(rewards, samples, scores)
    if on_error == "stop" and (failed := [scored.error for scored in scores if scored.error]):
        raise RewardError(f"{len(failed)} responses of step {step} could not be scored; the first:\n{failed[0]}")
    layers = masses[0].image_TL.shape[1] if masses and masses[0] else 0
    blind = any(response.tokens.dependence_T is not None for response in arrived)
    triples = zip(arrived, samples, scores, strict=True)
    responses = [_scored(response, sample, scored, rewards) for response, sample, scored in triples]
    return ScoredBatch(step, tuple(responses), rewards.weights, rewards.gates, layers, blind)


def _text_score(response: Arrived) -> TextScore:
    """The reward worker's score, with this response's text: the trajectories of a session share one score."""
    info = response.extra_fields.get("reward_extra_info") or {}
    if TEXT_SCORE not in info:
        raise RuntimeError(
            f"response {response.key} was not scored by avar_rl's reward manager: reward.reward_manager must be ours "
            "(see recipes/config/grpo.yaml)"
        )
    scored = TextScore.from_json(info[TEXT_SCORE])
    tokens = len(response.token_ids_T)
    return replace(scored, sample=replace(scored.sample, response=response.response, response_tokens=tokens))


def _own_masses(arrived: Sequence[Arrived], needed: bool) -> list[Masses | None]:
    """The masses of the tokens that the policy wrote. RuntimeError: they are needed, and nothing was recorded."""
    found: list[Masses | None] = []
    for response in arrived:
        if response.masses is None and needed:
            raise RuntimeError(f"the actor's forward recorded no span masses of response {response.key}")
        found.append(response.masses and _rows(response.masses, response.mask_T))
    if needed and found and not any(bool((masses.system_TL > 0).any()) for masses in found if masses):
        raise RuntimeError("the actor's forward recorded no span masses at all; attention rewards would be constants")
    return found


def _rows(of_tokens: Measured, mask_T: Tensor) -> Measured:
    """The same of the tokens that a mask names."""
    measured = vars(of_tokens).items()
    columns: dict[str, Any] = {name: None if column is None else column[mask_T] for name, column in measured}
    return type(of_tokens)(**columns)


def _attention_samples(
    arrived: Sequence[Arrived], scores: Sequence[TextScore], masses: Sequence[Masses | None]
) -> list[AttentionSample]:
    groups: dict[str, list[int]] = {}
    for i, response in enumerate(arrived):
        groups.setdefault(response.uid, []).append(i)
    samples = []
    for i, (response, scored) in enumerate(zip(arrived, scores, strict=True)):
        group = groups[response.uid]
        seen = {"masses": masses[i], "group": tuple(m for j in group if (m := masses[j])), "position": group.index(i)}
        tokens = _rows(response.tokens, response.mask_T)
        if not scored.sample.image_sizes:  # nothing was masked
            tokens = replace(tokens, dependence_T=None)
        samples.append(AttentionSample(**vars(scored.sample), **seen, tokens=tokens))
    return samples


def _score_attention(
    rewards: RewardSet, samples: Sequence[AttentionSample], scores: Sequence[TextScore]
) -> list[TextScore]:
    """Every attention reward of every response that has no error yet."""

    async def one(sample: AttentionSample, scored: TextScore) -> TextScore:
        if scored.error:
            return scored
        try:
            return replace(scored, values=await rewards.score_attention(sample, scored.values))
        except RewardError as failure:
            return replace(scored, error=str(failure))

    async def every() -> list[TextScore]:
        return await asyncio.gather(*(one(*pair) for pair in zip(samples, scores, strict=True)))

    with ThreadPoolExecutor(1) as thread:  # a loop of our own, whether or not the trainer runs in one
        return thread.submit(asyncio.run, every()).result()


def _scored(response: Arrived, sample: AttentionSample, scored: TextScore, rewards: RewardSet) -> ScoredResponse:
    return ScoredResponse(
        key=response.key,
        uid=response.uid,
        sample=sample,
        token_ids_T=response.token_ids_T[response.mask_T],
        values=scored.values,
        score=rewards.combine(scored.values),
        masked=bool(scored.error) or undecided(scored.values),
        error=scored.error,
    )
