"""What a reward function is given: one response, with the question that it answers.

Shapes: N sequences, T tokens of the response, L recorded layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One response to one question. A reward whose parameter is annotated `Sample` runs during the rollout.

    question: the text of the user's turns, without image marks.
    response: the policy's text, decoded without special tokens.
    gold: the gold answer of the data row. `golds` are all its right answers, of which any will do: this one first, then
        those of `extra_info.other_golds`.
    row: the other columns of the data row (`row["extra_info"]`, `row["data_source"]`, your own), as the file has them.
    row_id: the row's `extra_info.id`, else its `extra_info.index`, as text.
    image_sizes: (width, height) of each image in pixels, in order; () for a question without images.
    response_tokens: length of the response in tokens; None where it is not known (outside training).
    max_response_tokens: the number of tokens at which a response is cut; None where there is no limit.
    parts: values of the rewards scored before this one, by name, in the recipe's order with gates first; None stands
        for "not applicable".
    options: the texts of a multiple choice, A first (`extra_info.options`); () where there are none.
    prefill: what the chat template has written of the assistant's turn, such as "<think>\\n"; the policy goes on from
        there, and its response does not repeat it.
    """

    question: str
    response: str
    gold: str
    row: Mapping[str, Any] = field(default_factory=dict)
    row_id: str = ""
    image_sizes: tuple[tuple[int, int], ...] = ()
    response_tokens: int | None = None
    max_response_tokens: int | None = None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    prefill: str = ""

    @property
    def golds(self) -> tuple[str, ...]:
        """All right answers, `gold` first. ValueError: the row's other ones are no list of texts."""
        return self.gold, *row_other_golds(self.row.get("extra_info"))


@dataclass(frozen=True)
class Masses:
    """Attention mass of each response token on the image and on the system turn, in each layer, averaged over heads.

    image_TL, system_TL: float32 (T, L), each value from 0 to 1. Tokens that the policy did not write (a tool's, say)
        are left out.
    region_TL: the part of `image_TL` that falls on the evidence boxes of the data row, 0 where it has none; None where
        nothing asked for it.
    """

    image_TL: Tensor
    system_TL: Tensor
    region_TL: Tensor | None = None


@dataclass(frozen=True)
class Tokens:
    """What is known of each response token that the policy wrote.

    log_probs_T: float32, its log-probability under the policy before the step.
    entropy_T: float32, the entropy of the policy's distribution there, in nats.
    dependence_T: float32, its log-probability less the one with masked images (`avar.blind`), in nats: above 0 where
        the token needs the image. None without a blind pass, and for a question without an image.
    """

    log_probs_T: Tensor
    entropy_T: Tensor
    dependence_T: Tensor | None = None


@dataclass(frozen=True)
class AttentionSample(Sample):
    """One response with its attention. A reward annotated `AttentionSample` runs after the actor's forward pass.

    masses: the attention masses of this response; None only where nothing was recorded.
    group: the masses of all responses to the same question, this one included, at index `position`.
    tokens: log-probabilities, entropies and dependence of its tokens; None outside training.
    advantage: of the response, where its tokens are weighted; None while rewards are scored.
    """

    masses: Masses | None = None
    group: tuple[Masses, ...] = ()
    position: int = 0
    tokens: Tokens | None = None
    advantage: float | None = None


@dataclass(frozen=True)
class LossBatch:
    """What a term of the actor's loss is given: a micro-batch of N sequences, padded to T response tokens.

    What the term does not need is None. Padding holds 0. "Grad" means: has the gradient of the policy.

    response_mask_NT: bool, the tokens that the policy wrote.
    log_probs_NT: float32, grad, of those tokens under the policy that is being updated.
    old_log_probs_NT, advantages_NT: float32, of the step's start; no gradient.
    entropy_NT: float32, grad.
    image_mass_NTL, system_mass_NTL, region_mass_NTL: float32, grad, attention masses in each recorded layer, averaged
        over heads; region_mass is 0 for a row without evidence boxes.
    blind_log_probs_NT, blind_entropy_NT: float32, grad, of the same tokens where the images are masked.
    has_image_N, has_region_N, right_N: bool, of each sequence; right_N: the accuracy reward is above 0.
    """

    response_mask_NT: Tensor
    log_probs_NT: Tensor
    old_log_probs_NT: Tensor
    advantages_NT: Tensor
    has_image_N: Tensor
    has_region_N: Tensor
    right_N: Tensor
    entropy_NT: Tensor | None = None
    image_mass_NTL: Tensor | None = None
    system_mass_NTL: Tensor | None = None
    region_mass_NTL: Tensor | None = None
    blind_log_probs_NT: Tensor | None = None
    blind_entropy_NT: Tensor | None = None


def prefill_of(prompt: str) -> str:
    """What stands in a prompt, as the model gets it, after the header of its last turn; "" for another turn's header.

    Args:
        prompt: rendered by a chat template with Qwen's markup and `add_generation_prompt`, or the end of one.
    """
    _, mark, turn = prompt.rpartition("<|im_start|>")
    header, _, prefill = turn.partition("\n")
    return prefill if mark and header == "assistant" else ""


def question_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """The text of the user's turns in a chat, without image marks, one turn a line.

    Args:
        messages: turns {role, content}; a content is text with `<image>` marks, or a list of typed parts
            ({type: "text", text: …}, {type: "image", …}).
    """
    texts = []
    for message in messages:
        if message["role"] != "user":
            continue
        content = message["content"]
        parts = [content] if isinstance(content, str) else [p["text"] for p in content if p.get("type") == "text"]
        texts.append("".join(parts).replace("<image>", "").strip())
    return "\n".join(texts)


def row_options(extra: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The texts of a multiple choice, A first: `options` of a row's `extra_info`, () where there are none.

    Raises:
        ValueError: `options` is no list of texts.
    """
    return _texts(extra, "options")


def row_other_golds(extra: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The right answers beside `reward_model.ground_truth`: `other_golds` of a row's `extra_info`, () without any.

    Raises:
        ValueError: `other_golds` is no list of texts.
    """
    return _texts(extra, "other_golds")


def _texts(extra: Mapping[str, Any] | None, name: str) -> tuple[str, ...]:
    found = (extra or {}).get(name)
    if found is None:
        return ()
    if not isinstance(found, list | tuple) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"extra_info.{name} is {found!r}; it must be a list of texts")
    return tuple(found)
