"""The cold start's ranks on a Ray cluster train exactly as torchrun's ranks on one machine do, and end as they do."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["data.train_batch_size=8", "data.micro_batch_size_per_gpu=4", "trainer.total_training_steps=3"]
SMALL += [
    "trainer.n_gpus_per_node=2",
    "trainer.seed=0",
    "engine.seed=0",
    "data.val_files=null",
    "trainer.save_freq=100",
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("miniature")
    data = [
        "data_tools.miniature.data",
        "--out",
        f"{folder}/data",
        "--pretrain-rows",
        "60",
        "--sft-rows",
        "60",
        "--rl-rows",
        "8",
    ]
    model = ["data_tools.miniature.model", "--out", f"{folder}/base", "--data", f"{folder}/data"]
    for command in (data, model):
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture
def cluster():
    """A head of two devices on loopback, closed by a token; its environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**os.environ, **token, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    start = "from ray.scripts.scripts import main; main()"
    options = ["--num-gpus=2", "--num-cpus=4", "--object-store-memory=200000000", "--include-dashboard=false"]
    head = subprocess.Popen(
        [sys.executable, "-c", start, "start", "--head", "--block", f"--port={where.split(':')[1]}",
         "--node-ip-address=127.0.0.1", *options],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert head.stdout is not None
    said = []
    for line in head.stdout:
        said.append(line)
        if "Ray runtime started" in line:
            break
    else:
        pytest.fail("".join(said))
    yield {**environment, "RAY_ADDRESS": where}
    head.send_signal(signal.SIGTERM)  # --block ends what it started
    head.communicate(timeout=120)


def cold_start(inputs: Path, out: Path, environment: dict[str, str], **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "avar_rl.verl_plugin.sft", "recipes/config/tiny_sft", "--profile", "cpu", *SMALL]
    command += [f"data.train_files={inputs}/data/sft_train.parquet", f"model.path={inputs}/base"]
    command += [f"trainer.default_local_dir={out}/checkpoints", *options.get("overrides", [])]
    out.mkdir()
    return subprocess.Popen(
        command, cwd=ROOT, env=environment | {"AVAR_RUN": str(out)}, text=True,
        stdout=(out / "log").open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "logs" / "sft.metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["data"]["train/loss"] for line in lines if "train/loss" in line["data"]}


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ranks_on_ray_train_as_torchruns_do(inputs, cluster, tmp_path):
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    for name, environment in (("torchrun", alone), ("ray", cluster)):
        run = cold_start(inputs, tmp_path / name, environment)
        assert run.wait(timeout=500) == 0, (tmp_path / name / "log").read_text()[-4000:]
    expected = losses(tmp_path / "torchrun")
    assert list(expected) == [1, 2, 3]
    assert losses(tmp_path / "ray") == pytest.approx(expected, rel=1e-5)
    tracker = tmp_path / "ray" / "checkpoints" / "latest_checkpointed_iteration.txt"
    assert tracker.read_text() == "3"


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ranks_on_ray_stop_after_a_step(inputs, cluster, tmp_path):
    stopped = tmp_path / "stopped"
    run = running(inputs, stopped, cluster)
    run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=120) == 130, (stopped / "log").read_text()[-4000:]
    step = int((stopped / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    assert step == max(losses(stopped))
    assert f"stopped by a signal after step {step}" in (stopped / "log").read_text()


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_rank_on_ray_that_was_killed_is_named(inputs, cluster, tmp_path):
    killed = tmp_path / "killed"
    run = running(inputs, killed, cluster)
    rank = rank_of(cluster)
    os.kill(rank, signal.SIGKILL)
    started = time.monotonic()
    assert run.wait(timeout=120) == 75, (killed / "log").read_text()[-4000:]
    last = (killed / "log").read_text().strip().splitlines()[-1]
    print(f"{time.monotonic() - started:.0f} s after the kill: {last}")
    assert last.startswith(f"rank of the cold start (process {rank}) on node 127.0.0.1 (host ")
    assert last.endswith("yet: the same command starts over.")


def running(inputs: Path, out: Path, environment: dict[str, str]) -> subprocess.Popen:
    """A cold start that has logged a step and has thousands before it."""
    run = cold_start(inputs, out, environment, overrides=["trainer.total_training_steps=5000"])
    metrics, deadline = out / "logs" / "sft.metrics.jsonl", time.monotonic() + 400
    while not (metrics.is_file() and losses(out)) and time.monotonic() < deadline:
        assert run.poll() is None, (out / "log").read_text()[-4000:]
        time.sleep(0.2)
    return run


def rank_of(environment: dict[str, str]) -> int:
    """A process of the cluster that this environment is of, in which a rank trains."""
    ranks = [
        process for process in psutil.process_iter() if "RayTrainWorker" in process.name() + " ".join(process.cmdline())
    ]
    return next(r.pid for r in ranks if r.environ().get("RAY_AUTH_TOKEN") == environment["RAY_AUTH_TOKEN"])
