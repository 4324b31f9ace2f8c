"""Words that processes of one run leave for each other in Ray's own key-value store, whatever node they are on."""

import ray
from ray.experimental import internal_kv

_NAMESPACE = b"avar"


def put(name: str, value: str, overwrite: bool = True) -> None:
    """Leaves a value under a name that is this run's (Ray's job) alone; without `overwrite` the first one stays."""
    internal_kv._internal_kv_put(_key(name), value.encode(), overwrite=overwrite, namespace=_NAMESPACE)


def get(name: str) -> str | None:
    """The value that this run has under a name; None where there is none."""
    found = internal_kv._internal_kv_get(_key(name), namespace=_NAMESPACE)
    return None if found is None else found.decode()


def _key(name: str) -> bytes:
    return f"{ray.get_runtime_context().get_job_id()}/{name}".encode()
