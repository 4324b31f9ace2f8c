"""The same stages on Ray (`--ray`): a pool of actors for each stage, rows streaming through them under Ray Data.

The journal stays one sqlite file on the machine that started the run, in an actor of its own; what a row needs is
decided by the same `Tracer`, calls are made by the same `CallWorker`, so the result is that of a single process. Stages
with a `ray_engine` are played by vLLM engines that Ray places (`ray_engines`), each as a pass of its own.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from avar_rl.runtime import reaper
from avar_rl.runtime.environment import ray_workers_environment
from data_tools.synthesis.calls.journal import Completion, Failure, Journal
from data_tools.synthesis.calls.keeper import Keeper, Known
from data_tools.synthesis.calls.teachers import StoppedError
from data_tools.synthesis.inputs.recipe import STAGES, Recipe
from data_tools.synthesis.inputs.selection import Row, SelectedRows
from data_tools.synthesis.inputs.tokens import token_counter
from data_tools.synthesis.outcomes.stages import Tracer
from data_tools.synthesis.running.worker import CallWorker

ROWS_IN_FLIGHT = 2  # for each place of a worker's concurrency


class RemoteKeeper:
    """The `CallKeeper` that lives in an actor of Ray, by its handle."""

    def __init__(self, actor: Any):
        self._actor = actor

    async def get_many(self, keys: Sequence[str]) -> Known:
        return await self._actor.get_many.remote(keys)

    async def record(self, done: Completion | Failure) -> None:
        await self._actor.record.remote(done)

    async def charge(self) -> str | None:
        return await self._actor.charge.remote()

    async def halt(self, reason: str) -> None:
        await self._actor.halt.remote(reason)


class StageWorker:
    """One actor of a stage's pool: finishes the stage for a batch of pickled rows and hands the batch on."""

    def __init__(self, recipe: Recipe, stage: str, share: int, keeper: Any):
        tracer = Tracer(recipe, token_counter(recipe.filters.tokenizer))
        self._worker = CallWorker(recipe, tracer, RemoteKeeper(keeper), [stage], share)
        self._opened: asyncio.Future | None = None

    async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        if self._opened is None:
            self._opened = asyncio.ensure_future(self._worker.__aenter__())
        await self._opened
        await asyncio.gather(*(self._finish(pickle.loads(row)) for row in batch["row"]))
        yield batch

    async def _finish(self, row: Row) -> None:
        try:
            await self._worker.finish(row)
        except StoppedError:
            pass  # said to the keeper by whoever raised it


def passes(recipe: Recipe) -> list[list[str]]:
    """The stages in groups that each stream into each other; a stage with an engine is a group of its own."""
    found: list[list[str]] = []
    for stage in STAGES:
        alone = recipe.stage(stage).ray_engine is not None
        if found and not alone and recipe.stage(found[-1][-1]).ray_engine is None:
            found[-1].append(stage)
        else:
            found.append([stage])
    return found


def run_on_ray(recipe: Recipe, rows: SelectedRows, journal: Path, address: str) -> str | None:
    """Fills the journal on Ray; returns why that stopped early, or None.

    Args:
        address: of a Ray cluster ("auto", "host:port", …), or "local" for one on this machine that ends with the run.
            On a cluster, the variables that hold keys must be set where its nodes are started.
    """
    import ray

    Journal(journal).close()  # says here, not in an actor, what is wrong with it
    if address == "local":
        reaper.start()
    ray.init(address, runtime_env={"env_vars": ray_workers_environment()}, log_to_driver=False)
    try:
        keeper = _keeper(journal.resolve(), recipe)
        for stages in passes(recipe):
            _stream(recipe, rows, stages, keeper)
        return ray.get(keeper.close.remote())
    finally:
        ray.shutdown()


def _keeper(journal: Path, recipe: Recipe) -> Any:
    """The keeper's actor, on this machine: the journal is a local file."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Keeper).options(num_cpus=0, scheduling_strategy=here, max_concurrency=10_000)
    return actor.remote(journal, recipe)


def _stream(recipe: Recipe, rows: SelectedRows, stages: Sequence[str], keeper: Any) -> None:
    """One pass over the rows, through a pool of actors for each of `stages`."""
    import ray
    from tqdm import tqdm

    ray.data.DataContext.get_current().enable_progress_bars = False
    parts = [{"source": name, "group": group} for name, group in rows.parts()]
    data = ray.data.from_items(parts, override_num_blocks=len(parts))

    def read(part: dict[str, Any]) -> Iterator[dict[str, bytes]]:
        for row in rows.read(part["source"], [part["group"]]):
            yield {"row": pickle.dumps(row)}

    data = data.flat_map(read, num_cpus=0.25)
    for name in stages:
        stage = recipe.stage(name)
        if stage.ray_engine is not None:
            from data_tools.synthesis.running.ray_engines import engine_pass

            data = engine_pass(data, recipe, name, keeper)
            continue
        data = data.map_batches(
            StageWorker,
            fn_constructor_kwargs={"recipe": recipe, "stage": name, "share": stage.workers, "keeper": keeper},
            compute=ray.data.ActorPoolStrategy(size=stage.workers),
            batch_size=max(1, ROWS_IN_FLIGHT * stage.concurrency // stage.workers),
            num_cpus=0.25,
        )
    with tqdm(total=len(rows), desc="+".join(stages), unit="row") as bar:
        for batch in data.iter_batches(batch_size=None, prefetch_batches=1):
            bar.update(len(batch["row"]))
