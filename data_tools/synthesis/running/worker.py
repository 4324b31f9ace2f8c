"""Makes the calls that rows need: of all stages in a single process, of one stage in an actor of Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from contextlib import AsyncExitStack

from data_tools.synthesis.calls.journal import Completion, Failure
from data_tools.synthesis.calls.keeper import CallKeeper, Known
from data_tools.synthesis.calls.request import Request
from data_tools.synthesis.calls.teachers import StoppedError, Teacher
from data_tools.synthesis.inputs.recipe import Recipe
from data_tools.synthesis.inputs.selection import Row
from data_tools.synthesis.outcomes.stages import Tracer


class CallWorker:
    """Asks the teachers of `stages`. Use it as an asynchronous context.

    `share`: one of how many workers it is, each with its part of the concurrency and of the rate limits.
    """

    def __init__(self, recipe: Recipe, tracer: Tracer, keeper: CallKeeper, stages: Collection[str], share: int = 1):
        self.recipe, self.tracer, self.keeper, self.stages, self._share = recipe, tracer, keeper, stages, share
        self.stop = threading.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> CallWorker:
        used = {name: self.recipe.stage(name) for name in self.stages}
        self._slots = {name: asyncio.Semaphore(max(1, s.concurrency // self._share)) for name, s in used.items()}
        self._teachers = {}
        for name in sorted({stage.endpoint for stage in used.values()}):
            teacher = Teacher(name, self.recipe.endpoints[name], self._charge, self.stop, self._share)
            self._teachers[name] = await self._stack.enter_async_context(teacher)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def finish(self, row: Row) -> None:
        """Makes the calls of these stages that `row` needs.

        Raises:
            StoppedError: the run is to stop; what was under way has been journalled.
            OSError: the journal cannot be written.
        """
        known: Known = {}
        while needed := await self._needed(row, known):
            known |= await self.keeper.get_many([request.key for request in needed])
            missing = [request for request in needed if request.key not in known]
            if any(request.stage not in self.stages for request in missing):
                return
            results = await asyncio.gather(*map(self._call, missing), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result  # only now: the row's other calls have been journalled
                known[result.key] = result

    async def _needed(self, row: Row, known: Known) -> tuple[Request, ...]:
        if row.sample.gold_kind == "expression":  # grading may ask a process, and wait for it
            return await asyncio.to_thread(self.tracer.needed, row, known.get)
        return self.tracer.needed(row, known.get)

    async def _call(self, request: Request) -> Completion | Failure:
        stage = self.recipe.stage(request.stage)
        async with self._slots[request.stage]:
            try:
                done = await self._teachers[stage.endpoint].ask(request, stage)
            except StoppedError as error:
                await self.halt(str(error))
                raise
        await self.keeper.record(done)
        return done

    async def _charge(self) -> None:
        if reason := await self.keeper.charge():
            raise StoppedError(reason)

    async def halt(self, reason: str) -> None:
        """Asks nothing new from here on, and says so to the keeper; calls under way finish and count."""
        self.stop.set()
        await self.keeper.halt(reason)
