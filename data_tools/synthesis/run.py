"""The run: rows stream in, calls go out with bounded concurrency, results are journalled before they count."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from data_tools.synthesis.journal import Completion, Failure, Journal
from data_tools.synthesis.recipe import STAGES, Recipe
from data_tools.synthesis.request import Request, Row
from data_tools.synthesis.stages import Tracer
from data_tools.synthesis.teachers import StoppedError, Teacher


class Spending:
    """Requests, tokens and cost so far over all runs of the journal, held against the budget."""

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
        self.calls += 1
        if isinstance(done, Completion):
            self._add(done.stage, done.prompt_tokens, done.completion_tokens)

    def charge(self) -> None:
        """Counts a request that is about to be sent. StoppedError: the budget is spent."""
        for kind, limit, spent in (
            ("requests", self.budget.requests, self.requests),
            ("tokens", self.budget.tokens, self.tokens),
        ):
            if limit is not None and spent >= limit:
                raise StoppedError(f"the budget of {limit} {kind} is spent; raise budget.{kind} to go on")
        self.requests += 1


class Synthesis:
    """Fills the journal for rows until there is nothing to ask, or something says stop."""

    def __init__(self, recipe: Recipe, journal: Journal, tracer: Tracer):
        self.recipe, self.journal, self.tracer = recipe, journal, tracer
        self.spending = Spending(recipe, journal)
        self.stop = threading.Event()
        self.reason: str | None = None  # why it stopped early
        self._error: BaseException | None = None

    async def run(self, rows: Iterable[Row], progress) -> str | None:
        """Returns why it stopped early, or None where every row is finished.

        Raises:
            OSError: the journal cannot be written.
        """
        slots = {name: asyncio.Semaphore(self.recipe.stage(name).concurrency) for name in STAGES}
        # Enough rows in flight for every stage to be busy while another one holds rows up.
        window = asyncio.Semaphore(2 * sum(self.recipe.stage(name).concurrency for name in STAGES))
        tasks: set[asyncio.Task] = set()
        async with self._teachers() as teachers, _stopping_on_signals(self):
            for row in rows:
                await window.acquire()
                if self.stop.is_set():
                    break
                task = asyncio.create_task(self._finish(row, teachers, slots))
                tasks.add(task)
                task.add_done_callback(lambda t: (tasks.discard(t), window.release(), self._seen(t), progress()))
            while tasks:
                await asyncio.wait(set(tasks))
        if self._error:
            raise self._error
        return self.reason

    def _seen(self, task: asyncio.Task) -> None:
        """A row's unexpected error stops the run, after the calls that are under way."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StoppedError):
            self.halt(str(error))
        elif error is not None:
            self._error = self._error or error
            self.halt(str(error))

    def halt(self, reason: str) -> None:
        """Nothing new is asked from here on; calls under way finish and count."""
        self.reason = self.reason or reason
        self.stop.set()

    async def _finish(self, row: Row, teachers: dict[str, Teacher], slots: dict[str, asyncio.Semaphore]) -> None:
        known: dict[str, Completion | Failure] = {}

        def lookup(key: str) -> Completion | Failure | None:
            if key not in known and (found := self.journal.get(key)):
                known[key] = found
            return known.get(key)

        while not self.stop.is_set():
            needed = await self._trace(row, lookup)
            if not needed:
                return
            calls = [self._call(request, teachers, slots[request.stage]) for request in needed]
            results = await asyncio.gather(*calls, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result  # only now: the row's other calls have been journalled
                known[result.key] = result

    async def _trace(self, row: Row, lookup) -> tuple[Request, ...]:
        if row.sample.gold_kind == "expression":  # grading may ask a process, and wait for it
            return (await asyncio.to_thread(self.tracer.trace, row, lookup)).needed
        return self.tracer.trace(row, lookup).needed

    async def _call(self, request: Request, teachers: dict[str, Teacher], slot: asyncio.Semaphore):
        stage = self.recipe.stage(request.stage)
        async with slot:
            if self.stop.is_set():
                raise StoppedError(self.reason or "stopped")
            try:
                done = await teachers[stage.endpoint].ask(request, stage)
            except StoppedError as error:
                self.halt(str(error))
                raise
        await self.journal.record(done)
        self.spending.add(done)
        return done

    @asynccontextmanager
    async def _teachers(self) -> AsyncIterator[dict[str, Teacher]]:
        used = {self.recipe.stage(name).endpoint for name in STAGES}
        async with AsyncExitStack() as stack:
            made = {
                name: Teacher(name, endpoint, self.spending.charge, self.stop)
                for name, endpoint in self.recipe.endpoints.items()
                if name in used
            }
            yield {name: await stack.enter_async_context(teacher) for name, teacher in made.items()}


@asynccontextmanager
async def _stopping_on_signals(synthesis: Synthesis) -> AsyncIterator[None]:
    """The first Ctrl-C (or SIGTERM) lets the calls under way finish; the second ends the process."""
    loop = asyncio.get_running_loop()

    def halt(name: int) -> None:
        loop.remove_signal_handler(name)
        synthesis.halt("interrupted; calls under way were finished")

    names = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    for name in names:
        loop.add_signal_handler(name, halt, name)
    try:
        yield
    finally:
        for name in names:
            loop.remove_signal_handler(name)


class Progress:
    """A tqdm bar of rows: calls a second, requests, tokens, cost so far, and what it will come to."""

    def __init__(self, total: int, spending: Spending, *, every_s: float = 0.5):
        from tqdm import tqdm

        self._bar = tqdm(total=total, desc="synthesis", unit="row", mininterval=every_s)
        self._spending, self._every, self._shown = spending, every_s, 0.0
        self._started, self._first = time.monotonic(), spending.dollars

    def __call__(self) -> None:
        self._bar.update(1)
        now = time.monotonic()
        if now - self._shown >= self._every:
            self._shown = now
            self._bar.set_postfix_str(self.text(now), refresh=False)

    def text(self, now: float) -> str:
        spent = self._spending
        rate = spent.calls / max(now - self._started, 1e-9)
        parts = [f"{rate:.0f} calls/s", f"{spent.requests} requests", f"{spent.tokens / 1e6:.2f}M tokens"]
        if spent.dollars:
            rows = max(self._bar.n, 1)
            total = self._first + (spent.dollars - self._first) / rows * self._bar.total
            parts.append(f"${spent.dollars:.2f} of about ${total:.2f}")
        return ", ".join(parts)

    def close(self) -> None:
        self._bar.set_postfix_str(self.text(time.monotonic()))
        self._bar.close()
