"""The training-free intervention (arXiv 2603.03825, section 3): more weight on the image, less on the system turn.

    logit:   s'[q, k] = (1 + α_img) · s[q, k] on IMAGE keys,  (1 − α_sys) · s[q, k] on SYSTEM keys,  then softmax
    weight:  A'[q, k] ∝ (1 + α_img) · A[q, k] on IMAGE keys,  (1 − α_sys) · A[q, k] on SYSTEM keys,  renormalised

The paper's Z is not said to be the logit s or the weight A, so both are offered. Scaling a negative logit by 1.15
*lowers* its weight: `logit` does that, `weight` never does. Queries q: every token after the first image that is no
image token itself (text, markup, and all that is decoded); other queries are computed as ever. A sequence without an
image is left alone. Position 0, the attention sink, is markup and in neither set of columns.

No attention map is ever made, and no attention kernel changed: the intervention is a *wider head*. With r = 1 on
those queries and 0 elsewhere, g the gain of a key,

    logit:   [q, r·q] · [k, g·k] = q·k + r·g·(q·k),               g = α_img or −α_sys
    weight:  [q, r]   · [k, g/scale] · scale = s + r·g,           g = log(1 + α_img) or log(1 − α_sys)

so the stock function, called with wider queries and keys (and zeros behind the values), returns exactly the intervened
attention, whichever it is: SDPA, flash attention, eager; prefill and decoding, padded or not.
`avar_rl.evaluation.answering.vllm_intervention` uses the same algebra.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from avar_rl.attention.recorder import install_recording, language_attention_modules
from avar_rl.attention.roles import Markup, Role, has_role, token_roles
from avar_rl.runtime.layers import Layers, format_layers
from avar_rl.runtime.settings import NotNegative, Share, parse, settings

# Shapes: B batch, H heads, Q queries, K keys, T tokens so far, D head dim, W widened head dim.

_FLASH_HEAD_LIMIT = 256


@settings
class Intervention:
    """How strong the intervention is, and where it acts; img = sys = 0 is none. ValueError: out of bounds."""

    img: NotNegative = 0.15  # α_img
    sys: Share = 0.0  # α_sys; 1 in logit mode only, as a weight of 0 has no logarithm
    mode: Literal["logit", "weight"] = "weight"
    layers: Layers | None = None  # of the language model; None for all

    def __post_init__(self) -> None:
        if self.sys == 1 and self.mode == "weight":
            raise ValueError("sys must be below 1 in weight mode, not 1")

    @classmethod
    def parse(cls, text: str) -> Intervention:
        """The intervention that `img=0.15,sys=0.05,mode=weight,layers=0-13+20` describes: any of these, in any order.

        Layers are joined by + or commas, in the grammar of `avar_rl.runtime.layers`. ValueError: anything else.
        """
        found: dict[str, str] = {}
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals and list(found)[-1:] == ["layers"]:
                found["layers"] += f",{name}"
            elif not equals or name in found:
                fault = "is given twice" if equals else "is not one of img=, sys=, mode=, layers=FIRST-LAST"
                raise ValueError(f"intervention {text!r}: {part!r} {fault}")
            else:
                found[name] = value
        return parse(cls, found, "intervention")

    def __str__(self) -> str:
        """The text that `parse` reads as this intervention."""
        layers = "" if self.layers is None else f",layers={format_layers(self.layers, '+')}"
        return f"img={self.img:g},sys={self.sys:g},mode={self.mode}{layers}"

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return self.img > 0 or self.sys > 0

    def acts_on(self, roles_BT: Tensor) -> Tensor:
        """The queries that it acts on, bool (B, T), from the role of every token, int8 (B, T)."""
        image = has_role(roles_BT, Role.IMAGE)
        return (image.cumsum(1) > 0) & ~image

    def gains(self, roles_BT: Tensor) -> Tensor:
        """The gain g of every key, float32 (B, T), from the role of every token, int8 (B, T)."""
        image, system = (
            (math.log1p(self.img), math.log1p(-self.sys)) if self.mode == "weight" else (self.img, -self.sys)
        )
        return has_role(roles_BT, Role.IMAGE) * image + has_role(roles_BT, Role.SYSTEM) * system

    def width(self, head_dim: int) -> int:
        """The least widened head dim for heads of `head_dim`; a multiple of 8, as fast kernels want it."""
        return 2 * head_dim if self.mode == "logit" else 8 * (head_dim // 8 + 1)

    def widen_query(self, query: Tensor, acts: Tensor, width: int) -> Tensor:
        """Queries (..., D) → (..., W) with W = `width`; `acts`, bool (...), tells on which it acts (broadcasts)."""
        acts = acts[..., None].to(query.dtype)
        extra = query * acts if self.mode == "logit" else acts.expand(*query.shape[:-1], 1)
        return _fill(torch.cat([query, extra], -1), width)

    def widen_key(self, key: Tensor, gains: Tensor, width: int, scale: float) -> Tensor:
        """Keys (..., D) → (..., W) with W = `width`; `gains` (...) broadcasts, `scale` is the factor of the scores."""
        gains = gains[..., None]
        extra = key * gains if self.mode == "logit" else (gains / scale).expand(*key.shape[:-1], 1)
        return _fill(torch.cat([key, extra.to(key.dtype)], -1), width)


NO_INTERVENTION = Intervention(img=0.0, sys=0.0)


def _fill(x: Tensor, width: int) -> Tensor:
    return pad(x, (0, width - x.shape[-1]))


# Attention modules now intervened on → the intervention that runs. Empty unless one is on.
_INTERVENING: dict[nn.Module, _Running] = {}


@contextmanager
def intervene(model: nn.Module, intervention: Intervention, markup: Markup) -> Iterator[None]:
    """Every forward pass and `generate` of `model`, a transformers model, inside the block runs with the intervention.

        with intervene(model, Intervention(img=0.15, sys=0.05), Markup.from_tokenizer(processor.tokenizer)):
            model.generate(**inputs)

    Span masses recorded inside are those of the intervened attention. img = sys = 0 changes nothing, bit for bit.

    Raises:
        ValueError: no such layer, or an intervention is on already; in the forward pass a key cache of fixed size, one
            filled outside the block, or `inputs_embeds` without `input_ids`.
    """
    modules = language_attention_modules(model)
    layers = sorted(modules) if intervention.layers is None else intervention.layers
    absent = [layer for layer in layers if layer not in modules]
    if absent:
        raise ValueError(f"cannot intervene in layers {absent}: the model has layers {list(modules)}")
    if not intervention.active:
        yield
        return
    chosen = [modules[layer] for layer in layers]
    if any(module in _INTERVENING for module in chosen):
        raise ValueError("an intervention on this model is on already: leave its block before the next begins")
    running = _Running(intervention, markup)
    for module in chosen:
        _install(module)
    hook = model.register_forward_pre_hook(running.see_tokens, with_kwargs=True)
    _INTERVENING.update(dict.fromkeys(chosen, running))
    try:
        yield
    finally:
        hook.remove()
        for module in chosen:
            del _INTERVENING[module]


class _Running:
    """Follows the tokens that pass through the model, so that every layer finds queries and gains ready."""

    def __init__(self, intervention: Intervention, markup: Markup) -> None:
        self.intervention, self.markup = intervention, markup
        # Ids (B, T) of all tokens so far, and which of them came one by one, after the prompt
        self.tokens: tuple[Tensor, Tensor] | None = None
        self.acts = False  # whether any query of this forward pass may be one to act on

    def see_tokens(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Called before every forward pass of the model, with its arguments."""
        ids = kwargs["input_ids"] if "input_ids" in kwargs else (args[0] if args else None)
        if ids is None:
            raise ValueError("the intervention needs input_ids: embeddings do not tell where image and system turn are")
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.is_compileable:
            raise ValueError(
                f"the intervention does not support {type(cache).__name__}, a cache of fixed size: use the dynamic one"
            )
        seen = 0 if cache is None else cache.get_seq_length()
        decoded = torch.full_like(ids, seen > 0 and ids.shape[1] == 1, dtype=torch.bool)
        if seen:
            before = self.tokens
            if before is None or before[0].shape[1] < seen or len(before[0]) != len(ids):
                raise ValueError("the key cache was filled outside the intervention: run the prompt inside its block")
            ids, decoded = (torch.cat([old[:, :seen], new], 1) for old, new in zip(before, (ids, decoded), strict=True))
        self.tokens = ids, decoded
        self._mark(seen, ids, decoded, kwargs.get("attention_mask"))

    def _mark(self, seen: int, ids_BT: Tensor, decoded_BT: Tensor, mask: Tensor | None) -> None:
        # Without a mask of the usual shape, padding is known by lying outside turns
        mask = mask if isinstance(mask, Tensor) and mask.shape == ids_BT.shape else None
        roles_BT = token_roles(ids_BT, self.markup, attention_mask=mask, response_mask=decoded_BT)
        self.acts_BQ = self.intervention.acts_on(roles_BT)[:, seen:]
        self.gains_BK = self.intervention.gains(roles_BT)
        self.acts = bool(self.acts_BQ.any())

    def attention(self, stock, module, query, key, value, attention_mask, *args, **kwargs):
        """The stock attention function, called on wider heads; arguments as transformers passes them."""
        if (query.shape[2], key.shape[2]) != (self.acts_BQ.shape[1], self.gains_BK.shape[1]):
            raise ValueError(
                f"the attention has {query.shape[2]} queries and {key.shape[2]} keys, the tokens that passed are "
                f"{self.acts_BQ.shape[1]} and {self.gains_BK.shape[1]}: this way of running the model is not supported"
            )
        D = query.shape[-1]
        width = self.intervention.width(D)
        name = module.config._attn_implementation
        if width > _FLASH_HEAD_LIMIT and "flash" in name:
            raise ValueError(
                f"mode=logit doubles the head dim of {D}, and {name} stops at {_FLASH_HEAD_LIMIT}: use sdpa"
            )
        scale = kwargs.pop("scaling", None)
        scale = D**-0.5 if scale is None else scale
        query = self.intervention.widen_query(query, self.acts_BQ[:, None], width)
        key = self.intervention.widen_key(key, self.gains_BK[:, None], width, scale)
        output, weights = stock(module, query, key, _fill(value, width), attention_mask, *args, scaling=scale, **kwargs)
        return output[..., :D], weights


def _install(module: nn.Module) -> None:
    """Puts the intervening wrapper around the attention function of `module`, once a process and function, and outside
    the recording one, which then sees what the kernel sees."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    install_recording(module)
    config: Any = module.config
    name = config._attn_implementation
    stock = ALL_ATTENTION_FUNCTIONS[name]
    if hasattr(stock, "intervenes"):
        return

    @functools.wraps(stock)  # keeps the recording wrapper's own mark
    def intervening(module, query, key, value, attention_mask, *args, **kwargs):
        running = _INTERVENING.get(module)
        if running is None or not running.acts:
            return stock(module, query, key, value, attention_mask, *args, **kwargs)
        return running.attention(stock, module, query, key, value, attention_mask, *args, **kwargs)

    intervening_attention: Any = intervening
    intervening_attention.intervenes = True
    ALL_ATTENTION_FUNCTIONS[name] = intervening_attention
