"""What Ray says of the actors that a run is made of: where each runs, and how the lost ones ended.

Ray's own table of actors (GCS) is asked, not its dashboard: that can be switched off, and may be lost itself.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import state as ray_state
from ray.core.generated import common_pb2

from avar_rl.verl_plugin.health.loss import Loss

SERVER, TASK_RUNNER = "vLLMHttpServer", "TaskRunnerV1"
# verl's classes and Ray Train's, by what they are called in this project's documentation.
_TITLES = {
    TASK_RUNNER: "the task runner",
    "WorkerDict": "FSDP worker",
    "RewardLoopWorker": "reward worker",
    "AgentLoopWorkerTQ": "agent loop worker",
    SERVER: "vLLM server",
    "GlobalRequestLoadBalancer": "the load balancer of the vLLM servers",
    "SimpleStorageUnit": "storage of the transfer queue",
    "TransferQueueController": "the controller of the transfer queue",
    "RayTrainWorker": "rank of the cold start",
    "TrainController": "the controller of the cold start's ranks",
}
_protobuf: Any = common_pb2  # whose classes no type checker sees
_PREEMPTED = _protobuf.NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED
_LOST = (_protobuf.ActorDiedErrorContext.WORKER_DIED, _protobuf.ActorDiedErrorContext.NODE_DIED)
_CONNECT_SECONDS = 3.0


@dataclass(frozen=True)
class Actor:
    """One actor of the run, from Ray's table.

    title: what it is, with its name and process.
    ended: milliseconds since 1970 at which Ray noticed its end; 0 while it lives.
    lost: whether it ended although nobody asked for it; not where it went with its owner, which is then the one lost.
    cause: of a lost one, in Ray's words, shortened; "" where Ray knows only that its process is gone.
    """

    id: str
    kind: str
    name: str
    title: str
    node: str
    alive: bool
    ended: int
    lost: bool
    cause: str


def actors() -> list[Actor]:
    """All actors of this run (Ray's job)."""
    job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    return [_actor(row) for row in ray_state.actor_table(None, job).values()]


def _actor(row: Mapping[str, Any]) -> Actor:
    kind = row["ActorClassName"].rpartition(".")[2]
    title = _TITLES.get(kind, f"Ray actor {kind}")
    named = row["Name"] and not title.startswith("the ")
    lost, cause = _end(row["DeathCause"]) if row["State"] == "DEAD" else (False, "")
    return Actor(
        id=row["ActorID"],
        kind=kind,
        name=row["Name"],
        title=f"{title} {row['Name'] if named else ''}".strip() + f" (process {row['Pid']})",
        node=row["Address"]["NodeID"],
        alive=row["State"] == "ALIVE",
        ended=row["EndTime"],
        lost=lost,
        cause=cause,
    )


def _end(cause: Any) -> tuple[bool, str]:
    """Whether an actor's end was nobody's wish, and Ray's own words about it where they say more than that."""
    if cause.HasField("oom_context"):
        return True, "Ray ended it because its node ran out of memory"
    if not cause.HasField("actor_died_error_context"):
        return False, ""  # its code or its environment failed, which the trainer is told of
    context = cause.actor_died_error_context
    if context.reason not in _LOST or "Worker exit type: INTENDED" in context.error_message:
        return False, ""
    if context.node_death_info.reason == _PREEMPTED:
        return True, f"its node was preempted: {context.node_death_info.reason_message}"
    return True, _own_words(context.error_message)


def _own_words(message: str) -> str:
    """What Ray says of a worker's exit, where that is more than a connection that broke."""
    found = re.search(r"Worker exit detail: (.*)", message)
    detail = found[1].strip() if found else ""
    return "" if "connection error code" in detail else detail


def node_name(node: Mapping[str, Any]) -> str:
    """An entry of `ray.nodes()` as a person would call it."""
    return f"{node['NodeManagerAddress']} (host {node['NodeManagerHostname']})"


def node_loss(node: Mapping[str, Any], there: Sequence[Actor]) -> Loss | None:
    """The loss of a whole node with the members `there`; None where it still answers.

    Ray calls a node dead only after some rounds of asking. Hence a node is asked here, too.
    """
    if node["Alive"] and answers(node["NodeManagerAddress"], node["NodeManagerPort"]):
        return None
    said = node.get("DeathReasonMessage") or "it no longer answers"
    members = "1 member" if len(there) == 1 else f"{len(there)} members"
    member = f"node {node_name(node)} with {members} of the run"
    return Loss(member, "", f"{said}; its raylet was killed, or the machine is gone")


def answers(address: str, port: int) -> bool:
    """Whether somebody listens at a TCP address."""
    try:
        socket.create_connection((address, port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
