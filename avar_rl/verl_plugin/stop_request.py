"""A request to stop, from the driver that got a signal to the trainer, which Ray may run on another node.

It lies in Ray's store of the run, where the trainer looks at the end of each step.
"""

import ray

from avar_rl.runtime.stopping import say
from avar_rl.verl_plugin import job_store

_STOP, _TRAINING = "stop", "training"


def on_signal(name: str) -> None:
    """What a driver does at its first signal, `name`: asks the trainer to stop.

    Raises:
        KeyboardInterrupt: training has not begun, so there is no step to be finished.
    """
    if not (ray.is_initialized() and job_store.get(_TRAINING)):
        raise KeyboardInterrupt
    job_store.put(_STOP, name)
    say(f"{name}: the step in flight is finished and a checkpoint saved; a second signal leaves at once")


def is_made() -> bool:
    """Whether the driver of this job has asked for a stop."""
    return job_store.get(_STOP) is not None


def say_training_has_begun() -> None:
    """Tells the driver that from now on there is a step to be finished."""
    job_store.put(_TRAINING, "begun")
