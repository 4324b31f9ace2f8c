"""Token ids → the role of every token. This is the only definition of the spans of AVAR (arXiv 2603.03825, notation).

Roles come from exact token ids and Qwen's own chat markup, never from character offsets:

    <|im_start|>system\\n ... <|im_end|>\\n<|im_start|>user\\n<|vision_start|><|image_pad|>...<|vision_end|> ...
    <|im_end|>\\n

Choices where the paper is silent:
- Markup (im_start, role name, the newline after it, im_end, what lies between turns, vision_start, vision_end) is
  OTHER. So position 0, the attention sink, is OTHER; `avar_rl.vas` reports its numbers with and without it.
- Turns of another role name than system, user, assistant are OTHER.
- Where a row of data says which part of its images the answer rests on (evidence boxes), image tokens of that part are
  REGION. They are image tokens all the same: whoever asks for IMAGE gets them too (`has_role`).
- Where a tokenizer fuses the newline after the role name with a newline of the content ("\\n\\n"), that token is
  content.

Everything here is vectorised torch: no Python loop over tokens, and a device synchronisation only where a docstring
says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

# Shapes: B batch, T tokens, S spans, Q queries, N sequences of a packed batch.


class Role(IntEnum):
    """What a token belongs to: a span of the paper, or OTHER (markup, padding, turns of other roles).

    REGION is the part of IMAGE that evidence boxes mark: `has_role`, by which to ask, counts its tokens as IMAGE, too.
    """

    OTHER = 0
    SYSTEM = 1
    IMAGE = 2
    USER = 3
    RESPONSE = 4
    REGION = 5


_UNSEEN = -1  # the id of tokens that are invisible to the parser
_TURN_ROLES = {"system": Role.SYSTEM, "user": Role.USER, "assistant": Role.RESPONSE}


@dataclass(frozen=True)
class Markup:
    """The token ids of Qwen's chat markup in a tokenizer; `role_names` maps a role to the ids of its name."""

    im_start: int
    im_end: int
    vision_start: int
    vision_end: int
    image_pad: int
    video_pad: int
    newline: int
    role_names: dict[Role, tuple[int, ...]]

    @classmethod
    def from_tokenizer(cls, tokenizer) -> Markup:
        """Reads the ids from a Hugging Face tokenizer. ValueError: the tokenizer lacks a piece of Qwen's markup."""
        special = {
            name: _special_id(tokenizer, f"<|{name}|>")
            for name in ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
        }
        newline = tokenizer.encode("\n", add_special_tokens=False)
        if len(newline) != 1:
            raise ValueError(f"the tokenizer encodes a newline as {newline}; span roles need it to be one token")
        role_names = {}
        for name, role in _TURN_ROLES.items():
            header = tokenizer.encode(f"<|im_start|>{name}\n", add_special_tokens=False)
            if len(header) < 3 or header[0] != special["im_start"] or header[-1] != newline[0]:
                raise ValueError(
                    f"the tokenizer encodes the header of a {name} turn as {header}: not Qwen's chat markup"
                )
            role_names[role] = tuple(header[1:-1])
        return cls(**special, newline=newline[0], role_names=role_names)


def _special_id(tokenizer, token: str) -> int:
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no token {token}: span roles need Qwen's chat markup, "
            "so this model type has no span support"
        )
    return ids[0]


def token_roles(
    input_ids: Tensor,
    markup: Markup,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    response_mask: Tensor | None = None,
    region_mask: Tensor | None = None,
) -> Tensor:
    """The role of every token, from its id and place in the chat markup.

    Args:
        input_ids: int64 (B, T).
        markup: the token ids of the markup, `Markup.from_tokenizer(tokenizer)`.
        attention_mask: bool or int (B, T), zero on padding. Padding is OTHER. Without it padding must lie outside
            turns.
        cu_seqlens: int (N+1), the borders of the sequences of a packed batch (then B = 1); each is parsed on its own.
            None where nothing is packed.
        response_mask: bool (B, T). Its True tokens are RESPONSE whatever their ids: a policy may sample markup or
            image pads, so they are invisible to the parser. Tokens of assistant turns outside it (history, headers)
            are OTHER. Without it RESPONSE is the content of every assistant turn.
        region_mask: bool (B, T), image tokens that evidence boxes mark (`avar_rl.attention.regions.region_mask`): these
            are REGION. None: there are no boxes. What else it marks keeps its role.

    Returns:
        int8 (B, T) of `Role` values.

    Raises:
        ValueError: shapes that do not agree.
    """
    masks = dict(attention_mask=attention_mask, response_mask=response_mask)
    _check_batch(input_ids, "input_ids", cu_seqlens, **masks, region_mask=region_mask)
    ids = prompt_ids(input_ids, **masks)
    roles = _turn_roles(ids, markup, cu_seqlens)
    if response_mask is not None:
        roles.masked_fill_(roles == Role.RESPONSE, Role.OTHER)
    roles.masked_fill_((ids == markup.vision_start) | (ids == markup.vision_end), Role.OTHER)
    roles.masked_fill_((ids == markup.image_pad) | (ids == markup.video_pad), Role.IMAGE)
    if region_mask is not None:
        roles.masked_fill_((ids == markup.image_pad) & region_mask.bool(), Role.REGION)
    roles.masked_fill_(ids == _UNSEEN, Role.OTHER)
    if response_mask is not None:
        response = response_mask.bool() if attention_mask is None else response_mask.bool() & attention_mask.bool()
        roles.masked_fill_(response, Role.RESPONSE)
    return roles


def prompt_ids(
    input_ids: Tensor, *, attention_mask: Tensor | None = None, response_mask: Tensor | None = None
) -> Tensor:
    """The ids (B, T) that are parsed: -1, which matches no markup, on padding and in responses; see `token_roles`."""
    seen = torch.ones_like(input_ids, dtype=torch.bool)
    if attention_mask is not None:
        seen &= attention_mask.bool()
    if response_mask is not None:
        seen &= ~response_mask.bool()
    return input_ids.masked_fill(~seen, _UNSEEN)


def _turn_roles(ids: Tensor, markup: Markup, cu_seqlens: Tensor | None) -> Tensor:
    """int8 (B, T): the turn each token is content of. Every token takes the role of the last border at or before it."""
    sequence = sequence_ids(ids, cu_seqlens)
    opens = ids == markup.im_start
    role_at_border = torch.zeros_like(ids, dtype=torch.int8)
    content_after_border = torch.zeros_like(ids)  # how many tokens after the border the content begins
    for role, name in markup.role_names.items():
        header = opens.clone()
        for offset, token in enumerate(name, start=1):
            header &= _ahead(ids, offset, sequence) == token
        newline = (_ahead(ids, len(name) + 1, sequence) == markup.newline).long()
        role_at_border.masked_fill_(header, role)
        content_after_border = torch.where(header, 1 + len(name) + newline, content_after_border)

    border = opens | (ids == markup.im_end)
    border |= sequence != _behind(sequence)  # a turn never runs on into the next packed sequence
    position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    last_border = torch.where(border, position, -1).cummax(dim=1).values  # >= 0, as the first token is a border
    roles = role_at_border.gather(1, last_border)
    in_header = position < last_border + content_after_border.gather(1, last_border)
    return roles.masked_fill_(in_header, Role.OTHER)


def _ahead(ids: Tensor, offset: int, sequence: Tensor) -> Tensor:
    """The id `offset` tokens later in the same sequence, or -1."""
    later = torch.full_like(ids, -1)
    later[:, :-offset] = ids[:, offset:].masked_fill(sequence[:, offset:] != sequence[:, :-offset], -1)
    return later


def _behind(sequence: Tensor) -> Tensor:
    return torch.cat([torch.full_like(sequence[:, :1], -1), sequence[:, :-1]], dim=1)


def sequence_ids(like: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """Which sequence every token of `like` (B, T) belongs to, int64 (B, T): the packed sequence, counted from 0, or the
    row of the batch where nothing is packed (`cu_seqlens` is None)."""
    B, T = like.shape
    if cu_seqlens is None:
        return torch.arange(B, device=like.device)[:, None].expand(B, T)
    position = torch.arange(T, device=like.device)
    return torch.bucketize(position, cu_seqlens[1:-1].to(position), right=True)[None]


def has_role(roles: Tensor, role: Role) -> Tensor:
    """Which tokens have a role: int8 of `Role` values → bool of the same shape. REGION tokens have IMAGE, too."""
    if role == Role.IMAGE:
        return (roles == Role.IMAGE) | (roles == Role.REGION)
    return roles == role


def role_spans(roles: Tensor, wanted: Sequence[Role]) -> Tensor:
    """Which tokens have each wanted role (`has_role`), in that order: int8 (B, T) of `Role` values → bool (B, S, T)."""
    return torch.stack([has_role(roles, role) for role in wanted], dim=1)


def role_counts(roles: Tensor, wanted: Sequence[Role], *, cu_seqlens: Tensor | None = None) -> Tensor:
    """How many tokens of each wanted role every sequence has: int8 (B, T) of `Role` values → int64 (N, S).

    N is the number of sequences between the borders `cu_seqlens`, int (N+1), or B where nothing is packed.
    """
    member_BTS = role_spans(roles, wanted).transpose(1, 2).long()
    if cu_seqlens is None:
        return member_BTS.sum(1)
    counts = member_BTS.new_zeros(cu_seqlens.numel() - 1, len(wanted))
    return counts.index_add_(0, sequence_ids(roles, cu_seqlens)[0], member_BTS[0])


def require_roles(
    roles: Tensor,
    needed: Iterable[Role],
    *,
    names: Sequence[str] | None = None,
    cu_seqlens: Tensor | None = None,
) -> None:
    """Raises ValueError where a sequence has no token of a needed role. Synchronises with the device.

    Args:
        roles: int8 (B, T) of `Role` values.
        names: of the sequences, for the message; without them they are counted from 0.
        cu_seqlens: int (N+1), the borders of the sequences of a packed batch (then B = 1).
    """
    needed = [Role(role) for role in needed]
    for row, counts in enumerate(role_counts(roles, needed, cu_seqlens=cu_seqlens).tolist()):
        for role, count in zip(needed, counts, strict=True):
            if count == 0:
                name = f"row {row}" if names is None else f"row {row} ({names[row]})"
                raise ValueError(
                    f"{name} has no {role.name} token. Check its chat turns and images, "
                    f"or leave rows without {role.name} out of this measurement."
                )


def query_positions(roles: Tensor, which: str, *, cu_seqlens: Tensor | None = None) -> Tensor:
    """The positions of the tokens whose attention is wanted: int64 (B, Q), ascending, padded with -1.

    Synchronises with the device once, as Q is the largest number of such tokens in a row of the batch.

    Args:
        roles: int8 (B, T) of `Role` values.
        which: "user", the USER tokens after the first IMAGE token of their sequence (Q of L_enh in arXiv 2603.03825,
            stage 2); "all_user", every USER token (U of VAS, section 2); "response", the RESPONSE tokens.
        cu_seqlens: int (N+1), the borders of the sequences of a packed batch (then B = 1).

    Raises:
        ValueError: `which` is none of these.
    """
    if which == "user":
        mask = has_role(roles, Role.USER) & _after_image(roles, cu_seqlens)
    elif which == "all_user":
        mask = has_role(roles, Role.USER)
    elif which == "response":
        mask = has_role(roles, Role.RESPONSE)
    else:
        raise ValueError(f"queries={which!r} is unknown: choose 'user', 'all_user' or 'response'")
    return mask_to_positions(mask)


def mask_to_positions(mask: Tensor) -> Tensor:
    """The True positions of every row of a mask, bool (B, T) → int64 (B, Q), ascending, padded with -1.

    Synchronises with the device once.
    """
    slot = mask.cumsum(1) - 1
    positions = mask.new_full((mask.shape[0], int(mask.sum(1).max())), -1, dtype=torch.int64)
    batch, position = mask.nonzero(as_tuple=True)
    positions[batch, slot[batch, position]] = position
    return positions


def _after_image(roles: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """bool (B, T): an IMAGE token of the same sequence stands at or before this one."""
    images = has_role(roles, Role.IMAGE).long().cumsum(1)
    if cu_seqlens is None:
        return images > 0
    before = torch.cat([images.new_zeros(1), images[0]])[cu_seqlens[:-1].long()]  # images before each sequence starts
    return images > before[sequence_ids(roles, cu_seqlens)]


def _check_batch(ids: Tensor, name: str, cu_seqlens: Tensor | None, **like: Tensor | None) -> None:
    if ids.ndim != 2:
        raise ValueError(f"{name} must have shape (B, T), not {tuple(ids.shape)}")
    for other, value in like.items():
        if value is not None and value.shape != ids.shape:
            raise ValueError(f"{other} has shape {tuple(value.shape)}, {name} has {tuple(ids.shape)}: they must agree")
    if cu_seqlens is not None and ids.shape[0] != 1:
        raise ValueError(f"a packed batch (cu_seqlens given) has B = 1, but {name} has shape {tuple(ids.shape)}")
