"""What the workers of a run share: the journal, the budget, and whether to stop. In Ray it is an actor of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from data_tools.synthesis.calls.journal import Completion, Failure, Journal
from data_tools.synthesis.inputs.recipe import STAGES, Recipe

Known = dict[str, Completion | Failure]


class CallKeeper(Protocol):
    """What a worker needs of a Keeper, wherever that lives; see there."""

    async def get_many(self, keys: Sequence[str]) -> Known: ...

    async def record(self, done: Completion | Failure) -> None: ...

    async def charge(self) -> str | None: ...

    async def halt(self, reason: str) -> None: ...


class Spending:
    """Requests, tokens and dollars so far over all runs of the journal, held against the budget."""

    def __init__(self, recipe: Recipe, journal: Journal):
        self.budget = recipe.budget
        self.prices = {name: recipe.stage(name).price for name in STAGES}
        self.requests, self.tokens, self.dollars, self.calls = journal.requests(), 0, 0.0, 0
        for name, usage in journal.usage().items():
            self._add(name, usage.prompt_tokens, usage.completion_tokens)

    def _add(self, stage: str, prompt: int, completion: int) -> None:
        price = self.prices[stage]
        self.tokens += prompt + completion
        self.dollars += (prompt * price.prompt + completion * price.completion) / 1e6

    def add(self, done: Completion | Failure) -> None:
        """Counts a call that has ended; its requests were counted by `charge`."""
        self.calls += 1
        if isinstance(done, Completion):
            self._add(done.stage, done.prompt_tokens, done.completion_tokens)

    def charge(self) -> str | None:
        """Counts a request that is about to be sent, or says why it may not be."""
        for unit, limit, spent in (
            ("requests", self.budget.requests, self.requests),
            ("tokens", self.budget.tokens, self.tokens),
        ):
            if limit is not None and spent >= limit:
                return f"the budget of {limit} {unit} is spent; raise budget.{unit} to go on"
        self.requests += 1
        return None


class Keeper:
    """The journal of one run and its budget. Failures of earlier runs are forgotten: their calls are tried again.

    Raises:
        ValueError: another run holds the folder, or the file is no journal.
        OSError: the disk is full or cannot be written.
    """

    def __init__(self, path: str | Path, recipe: Recipe):
        self.journal = Journal(path)
        self.journal.retry_failures()
        self.spending = Spending(recipe, self.journal)
        self.stopped: str | None = None  # why nothing new is asked any more

    async def get_many(self, keys: Sequence[str]) -> Known:
        """The calls among `keys` that are known, by key."""
        found = ((key, self.journal.get(key)) for key in keys)
        return {key: done for key, done in found if done is not None}

    async def record(self, done: Completion | Failure) -> None:
        """Returns when `done` is durable.

        Raises:
            OSError: it cannot be written.
        """
        await self.journal.record(done)
        self.spending.add(done)

    async def charge(self) -> str | None:
        """Counts a request that is about to be sent, or says why it must not be."""
        return self.stopped or self.spending.charge()

    async def halt(self, reason: str) -> None:
        """Stops the run for `reason`: nothing new is asked from here on; calls under way finish and count."""
        self.stopped = self.stopped or reason

    async def close(self) -> str | None:
        """Closes the journal; returns why the run stopped early, or None."""
        self.journal.close()
        return self.stopped
