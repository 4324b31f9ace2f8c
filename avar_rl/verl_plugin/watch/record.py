"""Writes the rollout record of `avar_rl.rollouts` from the trainer: a step's scored responses, its images once each."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from avar_rl.rollouts.record import Rollout, store_image, write_step
from avar_rl.runtime.images import open_image
from avar_rl.verl_plugin.config.settings import RolloutSettings
from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse

DIGITS = 4
_LONGEST_CHARACTER = 4  # bytes of UTF-8, so at most as many tokens

# Keys of responses → the messages of their prompts, [{role, content: text or [{type, text or image}]}] each.
FetchPrompts = Callable[[Sequence[str]], Sequence[Sequence[Mapping[str, Any]]]]
# Token ids → text, special tokens included.
Decode = Callable[[list[int]], str]


class RolloutRecorder:
    """Writes the record of the steps that the settings want, as the trainer reaches them."""

    def __init__(self, settings: RolloutSettings):
        self._settings = settings
        self._texts: dict[int, str] = {}  # of single tokens

    def write(self, scored: ScoredBatch, decode: Decode, prompts: FetchPrompts) -> None:
        """Writes the file of a step, and its images, where the settings want one.

        Args:
            prompts: fetches the messages of prompts; it is asked for one response of each group.
        """
        if self._settings.dir is None or scored.step % self._settings.every:
            return
        directory = Path(self._settings.dir)
        images: dict[str, tuple[str, ...]] = {}
        if self._settings.images:
            first = {uid: responses[0].key for uid, responses in scored.groups().items()}
            for uid, messages in zip(first, prompts(list(first.values())), strict=True):
                images[uid] = tuple(_reference(directory, image) for image in _images(messages))
        rollouts = [self._rollout(scored.step, r, images.get(r.uid, ()), decode) for r in scored.responses]
        write_step(directory, scored.step, rollouts)

    def _rollout(self, step: int, response: ScoredResponse, images: tuple[str, ...], decode: Decode) -> Rollout:
        sample = response.sample
        return Rollout(
            step=step,
            group=response.uid,
            row=sample.row_id,
            question=sample.question,
            gold=sample.gold,
            images=images,
            response=sample.response,
            tokens=tuple(token_texts(response.token_ids_T.tolist(), decode, self._texts)),
            raw=dict(response.values.raw),
            weighted=dict(response.score.weighted),
            total=response.total,
            closed=tuple(sorted(response.values.closed)),
            masked=response.masked,
            error=response.error,
            **{name: _rounded(values_T) for name, values_T in _by_token(response).items()},
        )


def _by_token(response: ScoredResponse) -> dict[str, torch.Tensor | None]:
    """What is known of each token (T,), by the names of `rollouts.record.MEASURES`; masses are means of the layers."""
    masses, tokens = response.masses, response.sample.tokens
    return {
        "image_mass": None if masses is None else masses.image_TL.double().mean(1),
        "system_mass": None if masses is None else masses.system_TL.double().mean(1),
        "region_mass": None if masses is None or masses.region_TL is None else masses.region_TL.double().mean(1),
        "dependence": response.dependence_T,
        "weight": response.weights_T,
        "entropy": None if tokens is None else tokens.entropy_T,
    }


def token_texts(ids: Sequence[int], decode: Decode, known: dict[int, str]) -> list[str]:
    """The text of each token of a response; put together they are the response.

    A character that several tokens share stands at the last of them, "" at the others.

    Args:
        known: texts of single tokens, filled on the way (decoding is slow, a vocabulary is small).
    """
    texts, pending = [], []
    for token in ids:
        if token not in known:
            known[token] = decode([token])
        pending.append(token)
        text = known[token] if len(pending) == 1 else decode(pending)
        if text.endswith("\ufffd") and len(pending) < _LONGEST_CHARACTER:
            texts.append("")
        else:
            texts.append(text)
            pending = []
    if pending:
        texts[-1] = decode(pending)
    return texts


def _rounded(values_T: torch.Tensor | None) -> tuple[float, ...]:
    return () if values_T is None else tuple(round(value, DIGITS) for value in values_T.double().tolist())


def _images(messages: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The image items of a prompt, in order."""
    contents = [message["content"] for message in messages if not isinstance(message["content"], str)]
    return [item for content in contents for item in content if item["type"] == "image"]


def _reference(directory: Path, item: Mapping[str, Any]) -> str:
    """A path for an image: its own where the data row has one, else that of a copy in the record."""
    if content := item.get("bytes"):
        return store_image(directory, content, f".{str(open_image(content).format).lower()}")
    if isinstance(item["image"], str):
        return str(Path(item["image"].removeprefix("file://")).resolve())
    png = io.BytesIO()
    open_image(item).save(png, "PNG")
    return store_image(directory, png.getvalue())
