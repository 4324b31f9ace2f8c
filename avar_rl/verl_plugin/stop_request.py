"""A request to stop, from the driver that got a signal, or is out of time, to the trainer.

Ray may run that on another node. The request lies in Ray's store of the run, where the trainer looks at the end of each
step.
"""

import ray

from avar_rl.runtime.stopping import BY_SIGNAL, say
from avar_rl.verl_plugin import job_store

_STOP, _TRAINING = "stop", "training"
_GOING_ON = "the step in flight is finished and a checkpoint saved"


def on_signal(name: str) -> None:
    """What a driver does at its first signal, `name`: asks the trainer to stop.

    Raises:
        KeyboardInterrupt: training has not begun, so there is no step to be finished.
    """
    _ask(BY_SIGNAL, KeyboardInterrupt)
    say(f"{name}: {_GOING_ON}; a second signal leaves at once")


def out_of_time(limit: str) -> None:
    """What a driver does when its time is over, as `limit` says, a setting: asks the trainer to stop.

    Raises:
        TimeoutError: training has not begun, so there is no step to be finished.
    """
    _ask(limit, TimeoutError)
    say(f"{limit} is over: {_GOING_ON}")


def _ask(by: str, too_early: type[BaseException]) -> None:
    """Leaves the request, unless there is one. `too_early` is raised where training has not begun."""
    if not (ray.is_initialized() and job_store.get(_TRAINING) is not None):
        raise too_early
    job_store.put(_STOP, by, overwrite=False)


def asked_by() -> str | None:
    """Who or what has asked this run to stop, in words for `Stopped`; None where nobody has."""
    return job_store.get(_STOP)


def is_made() -> bool:
    """Whether the driver of this run has asked for a stop."""
    return asked_by() is not None


def say_training_has_begun() -> None:
    """Tells the driver that from now on there is a step to be finished."""
    job_store.put(_TRAINING, "begun")
