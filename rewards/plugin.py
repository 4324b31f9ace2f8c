"""What changes the training signal, as plug-ins: one file, one name. A decorator marks a function; a recipe names it.

    from rewards.plugin import reward
    from rewards.sample import Sample

    @reward
    def brevity(sample: Sample, *, words: int = 50) -> float:
        return float(len(sample.response.split()) <= words)

There are three kinds: `@reward` gives a response a number, `@token_weight` gives each token of a response a factor of
its advantage, `@actor_loss` adds a term to the actor's loss. The name is the function's; its file is
`rewards/<name>.py`, the one of that name among the shipped ones, or the `path` that the recipe gives. Keyword-only
parameters are options of the recipe.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from rewards import finding
from rewards.finding import Kind, PlugIn
from rewards.sample import AttentionSample, LossBatch, Sample

FOLDER = finding.FOLDER
Function = TypeVar("Function", bound=Callable[..., Any])

# verl gives these keys of a reward's result a meaning of its own; `total` is the sum of the parts.
RESERVED = frozenset({"acc", "pred", "reward", "score", "total", "uid", "reward_sample"})
REWARD = Kind(
    "reward", "reward", "avar.rewards", "shipped", (Sample, AttentionSample), ("weight", "gate", "path"), RESERVED
)
TOKEN_WEIGHT = Kind(
    "token_weight",
    "token weight",
    "avar.token_weights",
    "token_weights",
    (AttentionSample, Sequence[AttentionSample]),
    ("normalise", "path"),
)
ACTOR_LOSS = Kind("actor_loss", "actor loss", "avar.losses", "actor_losses", (LossBatch,), ("weight", "path"))


@dataclass(frozen=True)
class Reward(PlugIn):
    """A reward function with what it declares; `gate` is the one where the recipe names none."""

    gate: str | None = None

    @property
    def after_forward(self) -> bool:
        """Whether it takes an AttentionSample: it then runs after the actor's forward pass."""
        return self.takes is AttentionSample

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine."""
        return inspect.iscoroutinefunction(self.function)


@overload
def reward(function: Function) -> Function: ...
@overload
def reward(
    *, name: str | None = None, gate: str | None = None, needs: Iterable[str] | None = None
) -> Callable[[Function], Function]: ...
def reward(
    function: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    gate: str | None = None,
    needs: Iterable[str] | None = None,
) -> Any:
    """Declares a function to be a reward: `@reward`, or `@reward(name=…, gate=…, needs=…)`.

    The function takes a `Sample` or an `AttentionSample`, and keyword-only options; it returns a finite number, or None
    for "not applicable". It may be `async`.

    Args:
        name: in recipes; the function's own by default.
        gate: name of the reward that must be above 0 for this one to count; a recipe may set another one, or null.
        needs: what an AttentionSample must hold: "masses" (the default), "region", "blind"; () for none of them, as
            log-probabilities and entropies are always there.

    Raises:
        TypeError: the signature is another one, or the name is none that a recipe can use.
    """
    if function is None:
        return functools.partial(reward, name=name, gate=gate, needs=needs)
    found = finding.declare(REWARD, function, name, needs or ())
    if needs is None and found.takes is AttentionSample:
        needs = ("masses",)
    if needs and found.takes is not AttentionSample:
        what = ", ".join(needs)
        raise TypeError(f"{found.name} needs {what}: annotate its parameter AttentionSample ({found.place})")
    finding.register(Reward(**vars(found) | {"needs": frozenset(needs or ()), "gate": gate}))
    return function


@overload
def token_weight(function: Function) -> Function: ...
@overload
def token_weight(*, name: str | None = None, needs: Iterable[str] = ()) -> Callable[[Function], Function]: ...
def token_weight(
    function: Callable[..., Any] | None = None, *, name: str | None = None, needs: Iterable[str] = ()
) -> Any:
    """Declares a function to be a token weight: `@token_weight`, or `@token_weight(name=…, needs=…)`.

    The function takes an `AttentionSample` and returns a factor (T,) of the advantage of each of its T tokens; or it
    takes all of a step, `Sequence[AttentionSample]`, and returns one such tensor for each. A factor is a finite number
    from 0.

    Args:
        name: in recipes; the function's own by default.
        needs: what a sample must hold: "masses", "region", "blind".

    Raises:
        TypeError: the signature is another one, or the name is none that a recipe can use.
    """
    if function is None:
        return functools.partial(token_weight, name=name, needs=needs)
    finding.register(finding.declare(TOKEN_WEIGHT, function, name, needs))
    return function


@overload
def actor_loss(function: Function) -> Function: ...
@overload
def actor_loss(*, name: str | None = None, needs: Iterable[str] = ()) -> Callable[[Function], Function]: ...
def actor_loss(
    function: Callable[..., Any] | None = None, *, name: str | None = None, needs: Iterable[str] = ()
) -> Any:
    """Declares a function to be a term of the actor's loss: `@actor_loss`, or `@actor_loss(name=…, needs=…)`.

    The function takes a `LossBatch` and returns a number for each token (N, T), of which the response's count, or one
    for each sequence (N,); how they are averaged over micro-batches and ranks is not its business.

    Args:
        name: in recipes; the function's own by default.
        needs: what the batch must hold: "masses", "region", "blind", "entropy"; "right" where the term is for right
            responses only, so that a recipe without the reward accuracy is refused.

    Raises:
        TypeError: the signature is another one, or the name is none that a recipe can use.
    """
    if function is None:
        return functools.partial(actor_loss, name=name, needs=needs)
    finding.register(finding.declare(ACTOR_LOSS, function, name, needs))
    return function


def find(name: str, path: str | None = None) -> Reward:
    """The reward called `name`; see `rewards.finding.find`."""
    return finding.find(REWARD, name, path)


def names_in(path: str) -> list[str]:
    """Names of the rewards that the file `path` declares; see `rewards.finding.names_in`."""
    return finding.names_in(REWARD, path)


def shipped() -> list[str]:
    """Names of the rewards in `rewards/` and `rewards/shipped/`, found without importing any of their files."""
    return finding.shipped(REWARD)


def declared_in(file: Path) -> set[str]:
    """Names of the rewards that `file` declares; see `rewards.finding.declared_in`."""
    return finding.declared_in(REWARD, file)
