"""Writes the rollout record of `avar_rl.rollouts` from the trainer: a step's scored responses, its images once each."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from avar_rl.rollouts.record import Rollout, store_image, write_step
from avar_rl.verl_plugin.config.settings import RolloutSettings
from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse

DIGITS = 4
_LONGEST_CHARACTER = 4  # bytes of UTF-8, so at most as many tokens

# Keys of responses → the messages of their prompts, [{role, content: text or [{type, text or image}]}] each.
FetchPrompts = Callable[[Sequence[str]], Sequence[Sequence[Mapping[str, Any]]]]


class RolloutRecorder:
    def __init__(self, settings: RolloutSettings):
        self._settings = settings
        self._texts: dict[int, str] = {}  # of single tokens

    def write(self, scored: ScoredBatch, decode: Callable[[list[int]], str], prompts: FetchPrompts) -> None:
        """The step's file, where the settings want one. `prompts` is asked for one response of each group."""
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

    def _rollout(self, step: int, response: ScoredResponse, images: tuple[str, ...], decode) -> Rollout:
        return Rollout(
            step=step,
            group=response.uid,
            row=response.row_id,
            question=response.question,
            gold=response.gold,
            images=images,
            response=response.response,
            tokens=tuple(token_texts(response.token_ids_T.tolist(), decode, self._texts)),
            image_mass=_mean_over_layers(response.image_mass_TL),
            system_mass=_mean_over_layers(response.system_mass_TL),
            raw=dict(response.raw),
            weighted=dict(response.weighted),
            total=response.total,
            closed=tuple(sorted(response.closed)),
            masked=response.masked,
            error=response.error,
        )


def token_texts(ids: Sequence[int], decode: Callable[[list[int]], str], known: dict[int, str]) -> list[str]:
    """The text of each token. A character that several tokens share stands at the last of them, "" at the others.

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


def _mean_over_layers(mass_TL: torch.Tensor | None) -> tuple[float, ...]:
    if mass_TL is None:
        return ()
    return tuple(round(mass, DIGITS) for mass in mass_TL.double().mean(1).tolist())


def _images(messages: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The image items of a prompt, in order."""
    contents = [message["content"] for message in messages if not isinstance(message["content"], str)]
    return [item for content in contents for item in content if item["type"] == "image"]


def _reference(directory: Path, item: Mapping[str, Any]) -> str:
    """A path for an image: its own where the data row has one, else that of a copy in the record."""
    from PIL import Image

    if item.get("bytes"):
        with Image.open(io.BytesIO(item["bytes"])) as image:
            return store_image(directory, item["bytes"], f".{image.format.lower()}")
    if isinstance(item["image"], str):
        return str(Path(item["image"].removeprefix("file://")).resolve())
    content = io.BytesIO()
    item["image"].save(content, "PNG")
    return store_image(directory, content.getvalue())
