"""Joining the Ray cluster that RAY_ADDRESS names: what is handed to ray.init, and what is said where that cannot be."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from avar_rl.verl_plugin import cluster

LAUNCHERS = Path(__file__).parents[2] / "recipes" / "cluster"
OF_THE_CPU_PROFILE = {
    "include_dashboard": True,
    "dashboard_host": "127.0.0.1",
    "num_cpus": 16,
    "num_gpus": 1,
    "object_store_memory": 500000000,
    "runtime_env": {"pip": None, "working_dir": "/here"},
    "log_to_driver": False,
}


def test_a_cluster_is_not_given_what_only_a_local_ray_takes(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    expected = {"log_to_driver": False, "runtime_env": {"env_vars": {"A": "1"}, "working_dir": "/here"}}
    assert cluster.init_arguments(OF_THE_CPU_PROFILE, {"env_vars": {"A": "1"}}) == expected


def test_a_ray_of_our_own_gets_all_and_is_local(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    arguments = cluster.init_arguments(OF_THE_CPU_PROFILE, {"env_vars": {}})
    assert arguments == OF_THE_CPU_PROFILE | {
        "address": "local",
        "runtime_env": {"env_vars": {}, "working_dir": "/here"},
    }


def test_an_address_where_nobody_listens_is_named(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        where = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", where)
        with pytest.raises(cluster.CannotJoinError, match=rf"RAY_ADDRESS={re.escape(where)}: no Ray answers there"):
            cluster.start({}, {})


def test_a_refused_token_is_told_from_a_cluster_that_is_not_there(monkeypatch, tmp_path):
    import ray

    def refused(**arguments):
        raise ConnectionError("Failed to connect to the cluster")  # Ray's word for a refused token, after a minute

    token = tmp_path / "token"
    token.write_text("0" * 64)
    monkeypatch.setattr(ray, "init", refused)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as head:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{head.getsockname()[1]}")
        with pytest.raises(cluster.CannotJoinError) as error:
            cluster.start({}, {})
    assert f"(RAY_AUTH_MODE is not set, token from {token})" in str(error.value)
    assert "set RAY_AUTH_MODE=token on every node" in str(error.value)


def node(host: str, devices: float, alive: bool = True) -> dict:
    return {"NodeManagerAddress": host, "Alive": alive, "Resources": {"GPU": devices} if devices else {"CPU": 4.0}}


@pytest.mark.parametrize(
    ("nodes", "wanted", "per_node", "has"),
    [
        ([node("a", 8), node("b", 8)], 2, 8, None),
        ([node("a", 8), node("b", 8, alive=False)], 2, 8, "a has 8"),
        ([node("a", 7), node("b", 9)], 2, 8, "a has 7, b has 9"),
        ([node("a", 0)], 1, 1, "a has 0"),
        ([node("a", 16)], 2, 8, None),  # two nodes' worth on one
        ([], 1, 1, "no node is alive"),
    ],
)
def test_what_a_cluster_lacks(nodes, wanted, per_node, has):
    lacks = cluster.lacking(nodes, wanted, per_node)
    assert lacks is None if has is None else lacks is not None and lacks.endswith(f"({has})")


def test_several_nodes_without_a_cluster_are_refused(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="trainer.nnodes=2: several nodes train as one Ray cluster"):
        cluster.refuse_nodes_without_ray(2)
    cluster.refuse_nodes_without_ray(1)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    cluster.refuse_nodes_without_ray(2)


def test_a_checkpoint_of_another_number_of_ranks_is_refused(tmp_path):
    actor = tmp_path / "global_step_6" / "actor"  # GRPO's; the cold start's files are in the step's own folder
    actor.mkdir(parents=True)
    for rank in range(2):
        (actor / f"model_world_size_2_rank_{rank}.pt").touch()
    with pytest.raises(ValueError, match=r"global_step_6 was saved by 2 ranks and cannot be resumed by 1 \("):
        cluster.refuse_other_ranks(tmp_path, 6, 1)
    cluster.refuse_other_ranks(tmp_path, 6, 2)
    cluster.refuse_other_ranks(tmp_path, 0, 1)  # nothing is resumed


@pytest.mark.parametrize(
    ("recipe", "restarts", "status", "requeued"),
    [
        ("exit 0", 0, 0, False),
        ("exit 1", 0, 1, False),
        ("exit 2", 0, 2, False),
        ("exit 75", 0, 75, True),  # a member was lost
        ("exit 75", 9, 75, True),
        ("exit 75", 10, 75, False),  # once too often
        ("trap 'exit 130' TERM; kill -TERM $PPID; while :; do sleep 0.05; done", 10, 130, True),
        ("trap 'exit 0' TERM; kill -TERM $PPID; while :; do sleep 0.05; done", 0, 0, False),  # it was done anyway
    ],
)
def test_a_slurm_job_goes_back_to_the_queue_when_told_to_stop_or_a_member_was_lost(
    recipe, restarts, status, requeued, tmp_path
):
    """The decisions of slurm.sh; benchmarks/cluster_trial.sh runs it under a real Slurm."""
    (tmp_path / "bin").mkdir()
    for name in ("ray", "srun", "scontrol"):
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/called\n')
        command.chmod(0o755)
    (tmp_path / "recipe.sh").write_text(recipe)
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1"}
    job |= {
        "SLURM_RESTART_COUNT": str(restarts),
        "AVAR_VENV": str(tmp_path),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", LAUNCHERS / "slurm.sh", "recipe.sh"], env=job, capture_output=True, text=True, timeout=30
    )
    called = (tmp_path / "called").read_text()
    assert done.returncode == status, done.stderr
    assert ("scontrol requeue 7" in called) is requeued
    assert "ray start --head" in called and "ray stop" in called


def test_launchers_are_sound_shell_and_name_the_pinned_ray():
    subprocess.run(["bash", "-n", LAUNCHERS / "slurm.sh"], check=True)
    task = yaml.safe_load((LAUNCHERS / "skypilot.yaml").read_text())
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    job = yaml.safe_load((LAUNCHERS / "kuberay.yaml").read_text())["spec"]["rayClusterSpec"]
    lock = (LAUNCHERS.parents[1] / "requirements" / "gpu.lock").read_text()
    pinned = re.findall(r"^ray(?:\[.*\])?==(\S+)", lock, re.MULTILINE)
    assert [job["rayVersion"]] == pinned
    assert job["authOptions"] == {"mode": "token"}
    (container,) = job["headGroupSpec"]["template"]["spec"]["containers"]
    devices = int(container["resources"]["limits"]["nvidia.com/gpu"])
    nodes = 1 + sum(group["replicas"] for group in job["workerGroupSpecs"])
    said = {entry["name"]: entry["value"] for entry in container["env"]}
    assert (devices, said["NNODES"]) == (8, str(nodes))  # eight: NGPUS of avar_qwen7b.sh
    assert task["num_nodes"] == nodes
