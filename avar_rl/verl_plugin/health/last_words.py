"""What a member said before it ended itself: Ray reports such an end as if the process had been killed."""

from avar_rl.verl_plugin import job_store

_NAME = "last words"


def leave(words: str) -> None:
    """Keeps the words of this run's first member that ends itself."""
    job_store.put(_NAME, words, overwrite=False)


def left() -> str:
    """The words that were left in this run; "" where there are none."""
    return job_store.get(_NAME) or ""
