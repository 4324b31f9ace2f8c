"""What the vLLM servers of a run say of their engines and machines; engines are processes that Ray knows nothing of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions

from avar_rl.verl_plugin.health.actors import SERVER, Actor
from avar_rl.verl_plugin.health.loss import oom_kills

_ANSWER_SECONDS = 10.0  # a server that takes longer is busy; where it is stuck, the step's limit is what ends the run


@dataclass(frozen=True)
class Report:
    """One server's answer.

    oom_kills: processes that the kernel of the server's machine has ended for want of memory, ever.
    dead: the name of the engine's process that ended, where vLLM has given the engine up; "" while it lives.
    status: the exit status of that process; None where vLLM does not know it.
    """

    oom_kills: int
    dead: str = ""
    status: int | None = None


def reports(actors: Sequence[Actor]) -> list[tuple[Actor, Report]]:
    """The answers of the servers among `actors`; without those that are busy or have just ended."""
    asked: dict[Any, Actor] = {}
    for server in actors:
        if server.kind == SERVER and server.alive:
            try:
                asked[ray.get_actor(server.name).__ray_call__.remote(report)] = server
            except ValueError:  # it has ended since; next time Ray's table says how
                continue
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS) if asked else ([], [])
    found = []
    for answer in answered:
        try:
            found.append((asked[answer], ray.get(answer)))
        except ray.exceptions.RayActorError:  # as above
            continue
    return found


def report(server: Any) -> Report:
    """Runs in the process of a server (`vLLMHttpServer`)."""
    engine = getattr(server, "engine", None)  # not there before it has started, nor on a replica's further nodes
    if engine is None or not engine.errored:
        return Report(oom_kills())
    processes = engine.engine_core.resources.engine_manager
    name = processes.failed_proc_name  # the first to end; vLLM then ends the others of the engine
    return Report(oom_kills(), name or "EngineCore", processes.finished_procs().get(name))
