"""The driver's look at all members of its run, every few seconds: the first one that is lost ends the run."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import ray
import ray._private.worker

from avar_rl.runtime.stopping import OUT_OF_TIME
from avar_rl.verl_plugin.health import actors as ray_actors
from avar_rl.verl_plugin.health import engines, last_words
from avar_rl.verl_plugin.health.loss import Loss, cause_of_exit, oom_kills

_EVERY_SECONDS = 3.0
_SETTLE_SECONDS = 4.0  # Ray hears of a process's end a moment after what waits for it does
_UNANSWERED = 3  # how many times in a row Ray's control store does not answer before it counts as lost
_PATIENCE = 20.0  # seconds without an answer of a node; Ray takes more than a minute where its connections just hang
_DAEMONS = {"raylet": "Ray's node manager (raylet)", "gcs_server": "Ray's control store (gcs_server)"}
_UNKNOWN = "its process ended without a word: killed (signal 9, by the kernel where memory ran out), or crashed"

Returned = TypeVar("Returned")


class MemberLostError(RuntimeError):
    """A member of the run was lost: `loss`. The text says which, where and why."""

    def __init__(self, loss: Loss):
        super().__init__(str(loss))
        self.loss = loss


def _raise_timeout() -> None:
    raise TimeoutError


def watched(
    run: Callable[[], Returned],
    seconds: float = 0.0,
    every: float = _EVERY_SECONDS,
    out_of_time: Callable[[], None] = _raise_timeout,
) -> Returned:
    """Calls `run`, which waits for a run on Ray, and asks Ray and vLLM every few seconds meanwhile.

    `run` is called in a thread of its own: in ray.get, the main thread would swallow what handlers of signals raise.

    Args:
        seconds: a limit in time; 0 for none.
        every: seconds between two looks.
        out_of_time: called once when they are over: asks the run to end, or raises.

    Raises:
        MemberLostError: a member was lost, of several the first; also in place of an error of `run` that a lost member
            has caused.
        TimeoutError: `seconds` are over, and `out_of_time` raises it.
        Exception: any other that `run` raises.
    """
    members, ended = RunMembers(), _in_thread(run)
    deadline = time.monotonic() + seconds if seconds else math.inf
    while not wait([ended], timeout=min(every, max(0.0, deadline - time.monotonic()))).done:
        if loss := members.first_loss():
            raise MemberLostError(loss)
        if time.monotonic() >= deadline:
            deadline = math.inf
            out_of_time()
    if error := ended.exception():
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            if loss := members.first_loss(failed=True):
                raise MemberLostError(loss) from error
            time.sleep(0.5)
        raise error
    return ended.result()


def _in_thread(run: Callable[[], Returned]) -> Future[Returned]:
    """The end of `run`, in a thread that does not keep the process alive."""
    end: Future[Returned] = Future()

    def call() -> None:
        try:
            end.set_result(run())
        except BaseException as error:  # noqa: BLE001 (raised by whoever waits for the end)
            end.set_exception(error)

    threading.Thread(target=call, name="avar-run", daemon=True).start()
    return end


class RunMembers:
    """All members of this process's run on Ray, from when it is made on."""

    def __init__(self):
        self._here = ray.get_runtime_context().get_node_id()
        self._oom_before = {self._here: oom_kills()}  # by node, when it was first asked
        self._oom_now = dict(self._oom_before)
        self._silent_since: dict[str, float] = {}  # by node, when it first did not answer

    def first_loss(self, failed: bool = False) -> Loss | None:
        """The first member that was lost so far; None while all are well.

        Args:
            failed: the run has failed. What is left of it does so as soon as a connection to a lost node breaks, and
                ends the members there, half a minute before Ray calls the node dead; so no node is waited for.
        """
        return self._lost_daemon() or self._lost_control_store() or self._lost_member(failed)

    def _lost_daemon(self) -> Loss | None:
        """Ray's own processes, where this command has started them."""
        node: Any = ray._private.worker._global_node
        for kind, process in node.dead_processes():
            if kind in _DAEMONS:
                member, where = f"{_DAEMONS[kind]} (process {process.pid})", f"{node.node_ip_address} (this machine)"
                return Loss(member, where, self._cause(self._here, process.returncode))
        return None

    def _lost_control_store(self) -> Loss | None:
        """Asked before anything else of the cluster: without it, every other question waits for a minute."""
        address, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        for _ in range(_UNANSWERED):
            if ray_actors.answers(address.strip("[]"), int(port)):
                return None
            time.sleep(1)
        return Loss(_DAEMONS["gcs_server"], f"{address} (the cluster's head)", "it no longer answers")

    def _lost_member(self, failed: bool) -> Loss | None:
        actors = ray_actors.actors()
        nodes = {node["NodeID"]: node for node in ray.nodes()}
        dead_engine = self._dead_engine(actors)
        lost = sorted((actor for actor in actors if actor.lost), key=lambda actor: actor.ended)
        ordered = sorted(nodes.values(), key=lambda node: not lost or node["NodeID"] != lost[0].node)
        if loss := self._lost_node(ordered, actors, failed or bool(lost or dead_engine)):
            return loss
        if lost:
            return self._lost_actor(lost[0], ray_actors.node_name(nodes[lost[0].node]))
        if dead_engine:
            server, report = dead_engine
            where = ray_actors.node_name(nodes[server.node])
            return Loss(
                f"vLLM's engine {report.dead} of {server.title}", where, self._cause(server.node, report.status)
            )
        return None

    def _lost_node(
        self, nodes: Sequence[Mapping[str, Any]], actors: Sequence[ray_actors.Actor], failed: bool
    ) -> Loss | None:
        """The first of `nodes` with members that has not answered for a while; where something has failed, at all."""
        now, losses = time.monotonic(), {}
        for node in nodes:
            ever = [actor for actor in actors if actor.node == node["NodeID"]]
            there = [actor for actor in ever if actor.alive or actor.lost] or (ever if failed else [])
            if there and (loss := ray_actors.node_loss(node, there)):
                losses[node["NodeID"]] = loss
        self._silent_since = {node: self._silent_since.get(node, now) for node in losses}
        patience = 0 if failed else _PATIENCE
        return next((loss for node, loss in losses.items() if now - self._silent_since[node] >= patience), None)

    def _lost_actor(self, actor: ray_actors.Actor, where: str) -> Loss:
        if actor.kind == ray_actors.TASK_RUNNER and (words := last_words.left()):
            return Loss(actor.title, where, f"it ended itself, {words}", OUT_OF_TIME)
        return Loss(actor.title, where, actor.cause or self._cause(actor.node))

    def _dead_engine(self, actors: list[ray_actors.Actor]) -> tuple[ray_actors.Actor, engines.Report] | None:
        """Asks all vLLM servers, whose answers also count what the kernels of their machines have killed."""
        dead = None
        for server, report in engines.reports(actors):
            self._oom_before.setdefault(server.node, report.oom_kills)
            self._oom_now[server.node] = report.oom_kills
            if report.dead and dead is None:
                dead = server, report
        self._oom_now[self._here] = oom_kills()
        return dead

    def _cause(self, node: str, status: int | None = None) -> str:
        """What ended a process of a node: what its kernel says, else its exit status, else that nobody knows."""
        kills = self._oom_now.get(node, 0) - self._oom_before.get(node, 0)
        if kills:
            return f"out of memory: its kernel has ended {kills} processes for want of it since the run began"
        return _UNKNOWN if status is None else cause_of_exit(status)
