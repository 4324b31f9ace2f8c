"""Did everything that a step asked for arrive? verl pads failed groups and trains on what is left, silently."""

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

_AGAIN = "Nothing was trained on the rest."


class MissingResponsesError(RuntimeError):
    """Fewer responses arrived than a step asked for, or parts of some did not."""


def share_missing(keys: Sequence[str], *, prompts: int, per_prompt: int, step: int, on_missing: str = "stop") -> float:
    """The share of a step's responses that did not arrive.

    Args:
        keys: verl's names of the responses that arrived, `{uid}_{session}_{index}`, without fillers. A session
            is one response, of one or more trajectories (`index`).
        prompts: the prompts of the step (`data.train_batch_size`).
        per_prompt: the responses asked for of each (`actor_rollout_ref.rollout.n`).
        on_missing: with "mask" the step is trained on those that arrived.

    Raises:
        MissingResponsesError: some are missing and `on_missing` is "stop", or all are; says how many and of how many
            prompts.
    """
    sessions = {key.rsplit("_", 1)[0] for key in keys}
    arrived = Counter(session.rsplit("_", 1)[0] for session in sessions)
    asked = prompts * per_prompt
    missing = asked - sum(min(count, per_prompt) for count in arrived.values())
    if missing and (on_missing == "stop" or missing == asked):
        complete = sum(count >= per_prompt for count in arrived.values())
        raise MissingResponsesError(
            f"{missing} of the {asked} responses of step {step} are missing, of {prompts - complete} of "
            f"{prompts} prompts: a rollout or reward worker died, or raised, while it worked on them (its own error "
            f"stands above). {_AGAIN} (avar.on_missing=mask trains on it.)"
        )
    return missing / asked


def require_whole(
    keys: Sequence[str],
    tokens: Sequence[int],
    log_probs: Mapping[str, Sequence[Tensor]],
    masses: Mapping[str, Sequence[Tensor]],
    step: int,
) -> None:
    """Stops a step with responses of which only a part came back.

    Args:
        keys: the responses.
        tokens: the number of tokens of each.
        log_probs: by name, one number for each token of each response.
        masses: by name, one number for each token and layer of each response, flat.

    Raises:
        MissingResponsesError: log-probabilities or masses are fewer than that, or no numbers; says which and how many.
    """
    for name, column in log_probs.items():
        _require(name, [len(values) == n for n, values in zip(tokens, column, strict=True)], keys, step)
    for name, column in masses.items():
        layers = {len(values) / n for n, values in zip(tokens, column, strict=True) if n}
        most = max(layers, default=0)
        full = [len(values) == n * most and most > 0 for n, values in zip(tokens, column, strict=True)]
        _require(name, [whole or not n for n, whole in zip(tokens, full, strict=True)], keys, step)
    for name, column in {**log_probs, **masses}.items():
        _require(name, [bool(values.isfinite().all()) for values in column], keys, step)


def require_images(keys: Sequence[str], asked: Sequence[int], seen: Sequence[int], step: int) -> None:
    """Stops a step with prompts whose images did not reach the policy.

    Args:
        asked: the number of images of each response's data row.
        seen: the number of images in its prompt as the policy got it; a video may add to it.

    Raises:
        MissingResponsesError: some prompts have fewer images than their rows.
    """
    _require("images", [found >= wanted for wanted, found in zip(asked, seen, strict=True)], keys, step)


def _require(name: str, whole: Sequence[bool], keys: Sequence[str], step: int) -> None:
    lacking = [key for key, is_whole in zip(keys, whole, strict=True) if not is_whole]
    if lacking:
        raise MissingResponsesError(
            f"{len(lacking)} of the {len(keys)} responses of step {step} came back without all of their {name}, the "
            f"first being {lacking[0]}. {_AGAIN}"
        )
