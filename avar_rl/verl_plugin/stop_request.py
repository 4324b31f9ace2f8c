"""A request to stop, from the driver that got a signal to the trainer, which Ray may run on another node.

It lies in Ray's own key-value store, under the job's id, where the trainer looks at the end of each step.
"""

import ray
from ray.experimental import internal_kv

_NAMESPACE = b"avar"


def make() -> None:
    """Asks the trainer of this job to stop."""
    _put("stop")


def is_made() -> bool:
    """Whether the driver of this job has asked for a stop."""
    return _exists("stop")


def say_training_has_begun() -> None:
    """Tells the driver that from now on there is a step to be finished."""
    _put("training")


def training_has_begun() -> bool:
    """Whether the trainer is past its start-up."""
    return _exists("training")


def _key(name: str) -> bytes:
    return f"{ray.get_runtime_context().get_job_id()}/{name}".encode()


def _put(name: str) -> None:
    internal_kv._internal_kv_put(_key(name), b"1", namespace=_NAMESPACE)


def _exists(name: str) -> bool:
    return internal_kv._internal_kv_exists(_key(name), namespace=_NAMESPACE)
