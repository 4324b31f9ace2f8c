"""What a reward function is given: one response, with the question that it answers.

Shapes: T tokens of the response, L recorded layers.
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
    """

    image_TL: Tensor
    system_TL: Tensor


@dataclass(frozen=True)
class AttentionSample(Sample):
    """One response with its attention. A reward annotated `AttentionSample` runs after the actor's forward pass.

    masses: the attention masses of this response; None only where nothing was recorded.
    group: the masses of all responses to the same question, this one included, at index `position`.
    """

    masses: Masses | None = None
    group: tuple[Masses, ...] = ()
    position: int = 0


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
