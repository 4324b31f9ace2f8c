"""Several engines that answer side by side: each an actor that Ray places, on this machine's GPUs or a cluster's.

An actor is given a request for each place in its batch that is free, so none waits for another's longest response. The
engine and the seed of a sample are those of a single engine, and so are the responses, up to what another batch does to
the rounding of half precision.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from typing import Any

from avar_rl.evaluation.answering.generate import (
    AnsweringEngine,
    AnswerRequest,
    Drawn,
    GenerationSettings,
    Response,
    check_context,
)
from avar_rl.evaluation.answering.questions import PromptLimits, load_processor
from avar_rl.runtime import reaper
from avar_rl.runtime.environment import (
    LOOPBACK,
    RAY_VARIABLES,
    prepare_environment,
    ray_workers_environment,
)


class Replica:
    """The actor of one engine: `answer` is called for many requests at once, and one loop moves them all."""

    def __init__(self, model: str, limits: PromptLimits, settings: GenerationSettings) -> None:
        prepare_environment()
        self._engine = AnsweringEngine(model, limits, load_processor(model), settings)
        self._waiting: dict[int, asyncio.Future[Response]] = {}
        self._stepping: asyncio.Task | None = None
        self._count = 0

    async def answer(self, request: AnswerRequest) -> Response:
        """The response to one request."""
        number, self._count = self._count, self._count + 1
        self._engine.add(AnswerRequest(number, request.question, request.sample))
        self._waiting[number] = future = asyncio.get_running_loop().create_future()
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        """Steps while there is something to answer; between two steps, new requests come in."""
        try:
            while self._engine.running:
                for request, response in self._engine.step():
                    assert isinstance(request.key, int)
                    self._waiting.pop(request.key).set_result(response)
                await asyncio.sleep(0)
        except BaseException as error:  # noqa: BLE001 (each request that waits raises it)
            while self._waiting:
                self._waiting.popitem()[1].set_exception(error)


class ReplicaPool:
    """`count` engines for one model. Used as `AnsweringEngine` is: a context with `answers`.

    Raises:
        ValueError: prompts and responses exceed the model's context, no Ray answers at RAY_ADDRESS, or it has not the
            GPUs (without any, CPUs).
    """

    def __init__(self, model: str, limits: PromptLimits, settings: GenerationSettings, count: int) -> None:
        import torch

        check_context(model, limits, settings)
        self._started = _join_ray()
        gpus = settings.tensor_parallel if torch.cuda.is_available() or _has_gpus() else 0
        check_room(count, gpus)
        self._in_flight = settings.in_flight
        actor = _actor_class(gpus, 2 * settings.in_flight)
        self._actors = [actor.remote(model, limits, settings) for _ in range(count)]

    def answers(self, requests: Iterable[AnswerRequest]) -> Iterator[list[Drawn]]:
        """The responses to `requests` as they are finished, in no order; each is taken when there is room for it."""
        running: dict[Any, tuple[AnswerRequest, int]] = {}  # by Ray's reference; with the place of the actor
        load = [0] * len(self._actors)
        for request in requests:
            while min(load) >= self._in_flight:
                yield _finished(running, load)
            place = load.index(min(load))
            load[place] += 1
            running[self._actors[place].answer.remote(request)] = request, place
        while running:
            yield _finished(running, load)

    def close(self) -> None:
        """Ends the actors, and the Ray that was started for them."""
        import ray

        for actor in self._actors:
            ray.kill(actor)
        if self._started:
            ray.shutdown()

    def __enter__(self) -> ReplicaPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_engine(
    model: str, limits: PromptLimits, processor: Any, settings: GenerationSettings, replicas: int
) -> AnsweringEngine | ReplicaPool:
    """One engine in this process, or several on Ray. ValueError: as these say it."""
    if replicas > 1:
        return ReplicaPool(model, limits, settings, replicas)
    return AnsweringEngine(model, limits, processor, settings)


def _finished(running: dict[Any, tuple[AnswerRequest, int]], load: list[int]) -> list[Drawn]:
    """Waits for a response and takes all that are there. ValueError: what an actor says so; else as Ray raises it."""
    import ray
    from ray.exceptions import RayTaskError

    ray.wait([*running], num_returns=1)
    ready, _ = ray.wait([*running], num_returns=len(running), timeout=0)
    found = []
    try:
        for reference, response in zip(ready, ray.get(ready), strict=True):
            request, place = running.pop(reference)
            load[place] -= 1
            found.append((request, response))
    except RayTaskError as error:
        if isinstance(error.cause, ValueError):
            raise error.cause from None
        raise
    return found


def _join_ray() -> bool:
    """Joins the cluster that RAY_ADDRESS names, or starts one on this machine; False where this process had joined."""
    named = os.environ.get("RAY_ADDRESS")
    for name, value in (RAY_VARIABLES | ({} if named else LOOPBACK)).items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return False
    environment = {"env_vars": ray_workers_environment()}
    dashboard = None if named else False
    if not named:
        reaper.start()
    try:
        ray.init(named or "local", runtime_env=environment, log_to_driver=False, include_dashboard=dashboard)
    except ConnectionError as error:
        raise ValueError(f"RAY_ADDRESS={named}: no Ray answers there; start one, or unset RAY_ADDRESS") from error
    return True


def _has_gpus() -> bool:
    import ray

    return ray.cluster_resources().get("GPU", 0) > 0


def check_room(count: int, gpus: int) -> None:
    """Raises ValueError where Ray has not `gpus` GPUs, or for 0 a CPU, for each of `count` replicas."""
    import ray

    kind, wanted = ("GPU", count * gpus) if gpus else ("CPU", count)
    there = int(ray.cluster_resources().get(kind, 0))
    if there < wanted:
        raise ValueError(f"--replicas {count} takes {wanted} {kind}s, and Ray has {there}: ask for fewer replicas")


def _actor_class(gpus: int, calls: int) -> Any:
    import ray

    resources = {"num_gpus": gpus, "num_cpus": 1}
    return ray.remote(Replica).options(**resources, max_concurrency=calls)
