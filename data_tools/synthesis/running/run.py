"""The run in a single process: rows stream in, at most so many are in flight, all stages at once."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from data_tools.synthesis.calls.keeper import Keeper, Spending
from data_tools.synthesis.calls.teachers import StoppedError
from data_tools.synthesis.inputs.recipe import STAGES, Recipe
from data_tools.synthesis.inputs.selection import Row, SelectedRows
from data_tools.synthesis.outcomes.stages import Tracer
from data_tools.synthesis.running.worker import CallWorker


async def run(
    recipe: Recipe, tracer: Tracer, keeper: Keeper, rows: Iterable[Row], progress: Callable[[], None]
) -> None:
    """Fills the journal until no row needs anything, or `keeper.stopped` says why not.

    Args:
        progress: is called after each row.

    Raises:
        OSError: the journal cannot be written.
    """
    errors: list[BaseException] = []
    # Enough rows in flight for every stage to be busy while another one holds rows up.
    window = asyncio.Semaphore(2 * sum(recipe.stage(name).concurrency for name in STAGES))
    async with CallWorker(recipe, tracer, keeper, STAGES) as worker, _stopping_on_signals(worker):

        async def finish(row: Row) -> None:
            try:
                await worker.finish(row)
            except StoppedError:
                pass  # said to the keeper by whoever raised it
            except BaseException as error:  # noqa: BLE001 (stops the run after the calls that are under way, and is raised then)
                errors.append(error)
                await worker.halt(str(error))
            finally:
                window.release()
                progress()

        async with asyncio.TaskGroup() as tasks:
            for row in rows:
                await window.acquire()
                if worker.stop.is_set():
                    break
                tasks.create_task(finish(row))
    if errors:
        raise errors[0]


@asynccontextmanager
async def _stopping_on_signals(worker: CallWorker) -> AsyncIterator[None]:
    """The first Ctrl-C (or SIGTERM) lets the calls under way finish; the second ends the process."""
    loop = asyncio.get_running_loop()
    halting: list[asyncio.Task] = []  # a task that nobody holds may be collected before it has run

    def halt(name: int) -> None:
        loop.remove_signal_handler(name)
        halting.append(loop.create_task(worker.halt("interrupted; calls under way were finished")))

    names = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    for name in names:
        loop.add_signal_handler(name, halt, name)
    try:
        yield
    finally:
        for name in names:
            loop.remove_signal_handler(name)


def run_here(recipe: Recipe, rows: SelectedRows, tracer: Tracer, journal: Path) -> str | None:
    """Fills the journal in this process, with a progress bar; returns why that stopped early, or None."""
    import uvloop

    keeper = Keeper(journal, recipe)
    progress = Progress(len(rows), keeper.spending)
    gc.freeze()  # modules stay: looking through them for garbage, again and again, takes 3 % of the run
    try:
        uvloop.run(run(recipe, tracer, keeper, rows, progress))
        return keeper.stopped
    finally:
        progress.close()
        keeper.journal.close()


class Progress:
    """A tqdm bar of rows: calls per second, requests, tokens, cost so far, and what it will come to."""

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
