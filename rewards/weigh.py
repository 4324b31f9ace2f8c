"""From token weights to one factor for each token of a response, which its advantage is multiplied by.

    A'_t = A_t * prod over the recipe's token weights of w_t / norm

`norm` is 1, or the mean of the weight over the response or over the step, as its line in the recipe says. Several
weights multiply: two that choose tokens choose those that both of them choose. A factor of 1 everywhere changes
nothing, bit by bit.

Shapes: T tokens of a response that the policy wrote, A those of all responses.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from avar_rl.runtime.settings import Share, parse, settings
from rewards.finding import PlugIn, find, needs_of, split_line
from rewards.plugin import TOKEN_WEIGHT
from rewards.sample import AttentionSample

if TYPE_CHECKING:
    from torch import Tensor

Normalise = Literal["none", "response", "batch"]
TopShare = Annotated[Share, Field(gt=0)]  # of tokens to be chosen: above 0, up to 1


class TokenWeightError(RuntimeError):
    """A token weight raised, or returned no factors: names the weight, the row and the fault."""


@settings
class WeightTerm:
    """A line of a recipe's `token_weights:`, `name: {normalise: …, path: …, an option: …}`.

    normalise: what a weight's factors are divided by, so that their mean is 1: nothing, their mean over each response,
        or their mean over all tokens of the step. Where that mean is 0, they stay 0.
    path: the file that declares the weight; None: it lies in `rewards/` or `rewards/token_weights/`.
    options: (key, value) of each keyword argument of the weight.
    """

    name: str
    normalise: Normalise = "none"
    path: str | None = None
    options: tuple[tuple[str, Any], ...] = ()


def parse_weights(lines: Any, where: str = "avar.token_weights") -> tuple[WeightTerm, ...]:
    """The terms of a recipe's `token_weights:` block, in its order.

    Raises:
        ValueError: names the first fault and its place. Whether the weights exist is checked by `TokenWeightSet`.
    """
    if not isinstance(lines or {}, Mapping):
        raise ValueError(f"{where} must be a mapping of names to options, not {lines!r}")
    return tuple(_term(str(name), value, f"{where}.{name}") for name, value in (lines or {}).items())


def _term(name: str, value: Any, where: str) -> WeightTerm:
    if not isinstance(value or {}, Mapping):
        raise ValueError(f"{where} must be a mapping of options, such as {{}}, not {value!r}")
    return parse(WeightTerm, {"name": name, **split_line(TOKEN_WEIGHT, value or {})}, where)


@dataclass(frozen=True)
class Weighed:
    """What the token weights make of the responses of one step, in the order of these.

    factors: float32 (T,) for each, the product of all weights after normalisation; None where a weight failed.
    returned: by weight, float64 (T,) for each, before normalisation; None where a weight failed.
    errors: weight, row and fault where a weight failed, below the traceback where it raised; "" elsewhere.
    """

    factors: tuple[Tensor | None, ...]
    returned: Mapping[str, tuple[Tensor | None, ...]]
    errors: tuple[str, ...]


@dataclass(frozen=True)
class _Bound:
    """A term with the function behind it."""

    plug_in: PlugIn
    normalise: Normalise
    options: dict[str, Any]

    @property
    def of_step(self) -> bool:
        """Whether it is given all responses of a step at once."""
        return self.plug_in.takes is not AttentionSample


class TokenWeightSet:
    """The token weights of a recipe."""

    def __init__(self, terms: Iterable[WeightTerm]):
        """Finds and checks every weight.

        Raises:
            ValueError: a weight is not found (see `rewards.finding.find`), does not take its options, or is normalised
                so that what it says is lost.
        """
        self._terms: dict[str, _Bound] = {}
        for term in terms:
            plug_in = find(TOKEN_WEIGHT, term.name, term.path)
            bound = _Bound(plug_in, term.normalise, plug_in.checked_options(dict(term.options)))
            if bound.of_step and bound.normalise == "response":
                raise ValueError(
                    f"avar.token_weights.{term.name}.normalise=response: {term.name} compares the responses of a step, "
                    "and a mean of 1 in each response takes out what it says of them; use none or batch"
                )
            self._terms[term.name] = bound

    @property
    def names(self) -> tuple[str, ...]:
        """The weights, in the recipe's order."""
        return tuple(self._terms)

    @property
    def plug_ins(self) -> list[PlugIn]:
        """The functions behind the terms, in the recipe's order."""
        return [term.plug_in for term in self._terms.values()]

    @property
    def needs(self) -> frozenset[str]:
        """What the weights need to be measured, of `rewards.finding.NEEDS`."""
        return needs_of(self.plug_ins)

    def weigh(self, samples: Sequence[AttentionSample]) -> Weighed:
        """The factors of the responses of one step.

        Args:
            samples: with `tokens`, and with `advantage`: of a response before it is weighted.

        Raises:
            TokenWeightError: a weight that is given the whole step raised, or did not return one tensor for each
                response; a weight failed on every response; or no token of the step has a factor above 0.
        """
        columns = [_called(name, term, samples) for name, term in self._terms.items()]
        errors = [next((f for f in row if isinstance(f, str)), "") for row in zip(*columns, strict=True)]
        errors = errors or [""] * len(samples)  # of no weight
        kept = [i for i, error in enumerate(errors) if not error]
        if samples and not kept:
            raise TokenWeightError(f"a token weight failed on every response of the step; the first:\n{errors[0]}")
        lengths = [_tokens(samples[i]) for i in kept]
        factors = dict(zip(kept, self._products([[c[i] for i in kept] for c in columns], lengths), strict=True))
        returned = {
            name: tuple(column[i] if i in factors else None for i in range(len(samples)))
            for name, column in zip(self._terms, columns, strict=True)
        }
        return Weighed(tuple(factors.get(i) for i in range(len(samples))), returned, tuple(errors))

    def _products(self, columns: Sequence[Sequence[Tensor]], lengths: Sequence[int]) -> Sequence[Tensor]:
        """The normalised product of the weights, each a column, for each response, float32 (T,).

        TokenWeightError: the responses have tokens, and all their factors are 0, or one is not finite.
        """
        import torch

        product_A = torch.ones(sum(lengths), dtype=torch.float64)
        for column, term in zip(columns, self._terms.values(), strict=True):
            product_A = product_A * _normalised(torch.cat([*column, product_A[:0]]), lengths, term.normalise)
        product_A = product_A.float()
        names = " x ".join(self._terms)
        if not bool(product_A.isfinite().all()):
            raise TokenWeightError(f"avar.token_weights: a factor {names} is too large for a 32-bit number")
        if len(product_A) and not bool((product_A > 0).any()):
            raise TokenWeightError(
                f"avar.token_weights: {names} is 0 for every token of the step, so nothing would be trained on; choose "
                "more tokens, or fewer weights that each leave tokens out"
            )
        return product_A.split(list(lengths)) if lengths else ()


def top_share(values_T: Tensor, share: float) -> Tensor:
    """Bool (T,): the ceil(share * T) largest of `values_T`; of equal ones, the earlier.

    Raises:
        ValueError: a value is not finite.
    """
    import torch

    ordered_T, order_T = values_T.sort(descending=True, stable=True)  # NaN counts as the largest
    if len(values_T) and not (math.isfinite(ordered_T[0]) and math.isfinite(ordered_T[-1])):
        raise ValueError("a value to choose tokens by is not finite")
    wanted = math.ceil(share * len(values_T) - 1e-9)  # 0.07 * 100 is 7.000000000000001
    chosen_T = torch.zeros(len(values_T), dtype=torch.bool)
    chosen_T[order_T[:wanted]] = True
    return chosen_T


def unweighted(sample: AttentionSample) -> Tensor:
    """Float32 (T,): 1 for each token. ValueError: nothing is known of the tokens (outside training)."""
    import torch

    return torch.ones(_tokens(sample))


def _called(name: str, term: _Bound, samples: Sequence[AttentionSample]) -> list[Any]:
    """For each response its checked factors, float64 (T,), or a text that says how the weight failed on it."""
    found: list[Any] = []
    step = _called_on_step(name, term, samples) if term.of_step else None
    for i, sample in enumerate(samples):
        try:
            value = term.plug_in.function(sample, **term.options) if step is None else step[i]
            found.append(_whole(value, _tokens(sample)))
        except Exception as error:  # noqa: BLE001 (a plug-in's mistake is its row's, as a reward's is)
            found.append(_failure(name, sample, error))
    return _in_range(name, found, samples)


def _failure(name: str, sample: AttentionSample, error: Exception) -> str:
    shown = "".join(traceback.format_exception(error)) if error.__traceback__ else ""
    where = f"token weight {name} failed on row {sample.row_id or '(no id)'}"
    return f"{shown}{where}: {type(error).__name__}: {error}"


def _called_on_step(name: str, term: _Bound, samples: Sequence[AttentionSample]) -> Sequence[Any]:
    try:
        found = list(term.plug_in.function(samples, **term.options))
        if len(found) != len(samples):
            raise ValueError(f"it returned {len(found)} tensors for {len(samples)} responses")
        return found
    except Exception as error:
        line = f"token weight {name} failed on the step: {type(error).__name__}: {error}"
        raise TokenWeightError(f"{traceback.format_exc()}{line}") from error


def _tokens(sample: AttentionSample) -> int:
    if sample.tokens is None:
        raise ValueError("token weights need AttentionSample.tokens")
    return len(sample.tokens.log_probs_T)


def _whole(value: Any, tokens: int) -> Tensor:
    import torch

    if not isinstance(value, torch.Tensor):
        raise ValueError(f"it returned {value!r}; a token weight returns a tensor")
    if value.shape != (tokens,):
        raise ValueError(f"it returned a tensor of shape {tuple(value.shape)} for {tokens} tokens, not ({tokens},)")
    return value


def _in_range(name: str, found: Sequence[Any], samples: Sequence[AttentionSample]) -> list[Any]:
    """The tensors of `found` in float64; a text instead of one with a number that is not finite, or below 0."""
    import torch

    tensors = [value.detach().cpu().double() for value in found if isinstance(value, torch.Tensor)]
    flat_A = torch.cat(tensors) if tensors else torch.zeros(0)
    checked = iter(tensors)
    every: list[Any] = [value if isinstance(value, str) else next(checked) for value in found]
    if bool(((flat_A >= 0) & flat_A.isfinite()).all()):
        return every
    for i, value in enumerate(every):
        for t, factor in enumerate([] if isinstance(value, str) else value.tolist()):
            if not (math.isfinite(factor) and factor >= 0):
                fault = ValueError(f"it returned {factor} for token {t}; a factor is a finite number from 0")
                every[i] = _failure(name, samples[i], fault)
                break
    return every


def _normalised(weight_A: Tensor, lengths: Sequence[int], how: Normalise) -> Tensor:
    """The weights (A,) of all responses with a mean of 1 over each, or over all; as they are where that mean is 0."""
    import torch

    if how == "none":
        return weight_A
    sizes = torch.tensor(lengths if how == "response" else [sum(lengths)])
    group_A = torch.arange(len(sizes)).repeat_interleave(sizes)
    mean_G = torch.zeros(len(sizes), dtype=torch.float64).index_add(0, group_A, weight_A) / sizes
    return weight_A / torch.where(mean_G > 0, mean_G, 1.0)[group_A]
