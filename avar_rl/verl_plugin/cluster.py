"""Ray, as a stage starts or joins it: one of its own on this machine, or the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avar_rl.runtime import reaper
from avar_rl.verl_plugin import checkpoints

# What ray.init takes only where it starts a Ray of its own; a cluster's nodes got theirs from `ray start`.
_LOCAL_ONLY = ("num_cpus", "num_gpus", "resources", "labels", "object_store_memory", "_system_config", "_node_name")
_LOCAL_ONLY += ("_enable_object_reconstruction", "include_dashboard", "dashboard_host", "dashboard_port", "_temp_dir")
_PATIENCE = 10.0  # seconds for a connection to the cluster's head
_MORE_NODES = (
    "have the other nodes join, lower NNODES or NGPUS, or, without GPUs, start nodes with `ray start --num-gpus=…`, "
    "which is Ray's word for devices"
)


class CannotJoinError(ValueError):
    """The cluster that RAY_ADDRESS names cannot be joined, or lacks what a stage asks for: a user's mistake."""


def address() -> str | None:
    """The cluster that RAY_ADDRESS names; None where a stage is to start its own Ray or none at all."""
    return os.environ.get("RAY_ADDRESS") or None


def refuse_nodes_without_ray(nodes: int) -> None:
    """Raises ValueError where several nodes are asked for and RAY_ADDRESS names no cluster."""
    if nodes > 1 and address() is None:
        raise ValueError(
            f"trainer.nnodes={nodes}: several nodes train as one Ray cluster; start it and set RAY_ADDRESS "
            "(docs/cluster.md), or set NNODES=1"
        )


def refuse_other_ranks(folder: Path, step: int, ranks: int) -> None:
    """Checks that a training resumes with the number of ranks whose files its checkpoint consists of.

    Args:
        folder: `trainer.default_local_dir`.
        step: of the checkpoint to be resumed; 0 for none.
        ranks: of this start, `trainer.nnodes` x `trainer.n_gpus_per_node`.

    Raises:
        ValueError: names both numbers and the ways on. verl would miss a file minutes later.
    """
    files = checkpoints.step_folder(folder, step).rglob("model_world_size_*_rank_0.pt") if step else ()
    saved = {int(path.name.split("_")[3]) for path in files}
    if saved and ranks not in saved:
        raise ValueError(
            f"the checkpoint {checkpoints.step_folder(folder, step)} was saved by {min(saved)} ranks and cannot be "
            f"resumed by {ranks} (NNODES x NGPUS): ask for {min(saved)} in all, or go on from its weights "
            "(docs/cluster.md)"
        )


def init_arguments(wanted: Mapping[str, Any], runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `ray.init`.

    Args:
        wanted: the recipe's `ray_kwargs.ray_init`. Of a cluster's, what only a local Ray takes is left out; the rest of
            its `runtime_env` beside `runtime_env`'s keys is kept.
        runtime_env: what every worker gets.
    """
    arguments = dict(wanted)
    environment = dict(runtime_env)
    environment |= {
        key: value for key, value in (arguments.pop("runtime_env", None) or {}).items() if value is not None
    }
    if address() is None:
        arguments["address"] = "local"  # never somebody else's cluster that happens to run on this machine
    else:
        arguments = {key: value for key, value in arguments.items() if key not in _LOCAL_ONLY}
    return arguments | {"runtime_env": environment}


def start(wanted: Mapping[str, Any], runtime_env: Mapping[str, Any]) -> Any:
    """Starts or joins Ray, see `init_arguments`; nothing of a Ray that it starts outlives this process by far.

    Returns: the context of `ray.init`.

    Raises:
        CannotJoinError: the cluster cannot be joined; one sentence with what RAY_ADDRESS says and what to do.
    """
    import ray
    from ray.exceptions import AuthenticationError

    named = address()
    if named is not None and not _answers(named):  # Ray itself would try for minutes
        raise _nobody(named)
    if named is None:
        reaper.start()
    try:
        return ray.init(**init_arguments(wanted, runtime_env))
    except (AuthenticationError, ConnectionError) as error:  # of a refused token Ray says either
        if isinstance(error, ConnectionError) and (named is None or ":" not in named):
            raise _nobody(named) from error
        raise CannotJoinError(
            f"RAY_ADDRESS={named}: the cluster refuses this process's token "
            f"(RAY_AUTH_MODE is {os.environ.get('RAY_AUTH_MODE') or 'not set'}, {_token_source()}): set "
            "RAY_AUTH_MODE=token on every node before `ray start` and here, with one token on all (docs/cluster.md)"
        ) from error


def _nobody(named: str | None) -> CannotJoinError:
    return CannotJoinError(
        f"RAY_ADDRESS={named}: no Ray answers there: start one (`ray start --head`), or unset RAY_ADDRESS for a Ray of "
        "this machine"
    )


def _answers(named: str) -> bool:
    """Whether anybody listens at HOST:PORT; True for what is no such address (auto, local)."""
    host, colon, port = named.rpartition(":")
    if not colon or not port.isdigit():
        return True
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def _token_source() -> str:
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "token from RAY_AUTH_TOKEN"
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return f"token from {file}" if file.is_file() else f"no token: neither RAY_AUTH_TOKEN nor {file}"


def wait_for_devices(wanted: int, per_node: int, minutes: float | None = None) -> None:
    """Waits until the nodes of the cluster that was joined have the devices that a stage asks for (Ray's `GPU`).

    Args:
        wanted: nodes, `trainer.nnodes`.
        per_node: devices on each, `trainer.n_gpus_per_node`.
        minutes: how long to wait for nodes that have not joined yet; None: AVAR_CLUSTER_MINUTES, else 10.

    Raises:
        CannotJoinError: they did not come; says what each node has. Ray alone would wait for them for ever.
    """
    import ray

    minutes = float(os.environ.get("AVAR_CLUSTER_MINUTES") or 10) if minutes is None else minutes
    deadline, said = time.monotonic() + 60 * minutes, False
    while fault := lacking(ray.nodes(), wanted, per_node):
        if time.monotonic() > deadline:
            raise CannotJoinError(f"{fault} after {minutes:g} minutes (AVAR_CLUSTER_MINUTES): {_MORE_NODES}")
        if not said:
            print(f"waiting up to {minutes:g} minutes for more nodes: {fault}", flush=True)
            said = True
        time.sleep(2)


def lacking(nodes: Sequence[Mapping[str, Any]], wanted: int, per_node: int) -> str | None:
    """What a cluster lacks of `wanted` nodes with `per_node` devices each, in words; None where it has them.

    Args:
        nodes: `ray.nodes()`.
    """
    alive = {node["NodeManagerAddress"]: int(node["Resources"].get("GPU", 0)) for node in nodes if node["Alive"]}
    if sum(devices // per_node for devices in alive.values()) >= wanted:
        return None
    has = ", ".join(f"{host} has {devices}" for host, devices in sorted(alive.items())) or "no node is alive"
    return (
        f"the cluster at RAY_ADDRESS={address()} does not offer trainer.nnodes={wanted} with "
        f"trainer.n_gpus_per_node={per_node} devices each ({has})"
    )
