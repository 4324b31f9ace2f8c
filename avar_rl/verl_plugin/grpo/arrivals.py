"""Did every response that a step asked for arrive? verl pads failed groups and trains on what is left, silently."""

from collections import Counter
from collections.abc import Sequence


class MissingResponsesError(RuntimeError):
    """Fewer responses arrived than a step asked for."""


def require_all_responses(keys: Sequence[str], *, prompts: int, per_prompt: int, step: int) -> None:
    """Stops a step that would train on fewer responses than the recipe asks for.

    Args:
        keys: verl's names of the responses that arrived, `{uid}_{session}_{index}`, without fillers. A session
            is one response, of one or more trajectories (`index`).
        prompts: the prompts of the step (`data.train_batch_size`).
        per_prompt: the responses asked for of each (`actor_rollout_ref.rollout.n`).

    Raises:
        MissingResponsesError: some are missing; says how many and of how many prompts.
    """
    sessions = {key.rsplit("_", 1)[0] for key in keys}
    asked = prompts * per_prompt
    if len(sessions) >= asked:
        return
    complete = sum(count >= per_prompt for count in Counter(key.rsplit("_", 1)[0] for key in sessions).values())
    raise MissingResponsesError(
        f"{asked - len(sessions)} of the {asked} responses of step {step} are missing, of {prompts - complete} of "
        f"{prompts} prompts: a rollout or reward worker died, or raised, while it worked on them (its own error stands "
        "above). Nothing was trained on the rest; run the same command again to resume from the last checkpoint."
    )
