"""What a member said before it ended itself: Ray reports such an end as if the process had been killed.

The words are in the store of Ray's GCS, under the job's own key: the driver finds them, whatever node they come from.
"""

import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

_PREFIX = "avar_last_words:"


def leave(words: str) -> None:
    """Keeps the words of this run's first member that ends itself."""
    _internal_kv_put(_key(), words.encode(), overwrite=False)


def left() -> str:
    """The words that were left in this run; "" where there are none."""
    found = _internal_kv_get(_key())
    return found.decode() if found else ""


def _key() -> bytes:
    return f"{_PREFIX}{ray.get_runtime_context().get_job_id()}".encode()
