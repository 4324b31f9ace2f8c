"""Environment variables that torch, transformers and vLLM read when imported; imports none of them at the top."""

import os
import sys
from pathlib import Path

VARIABLES = {
    "OMP_NUM_THREADS": "1",  # threads wait longer than they compute on small matrices: 5 x slower with 2 on 2 cores
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
# Where there is no CUDA device.
CPU_VARIABLES = {
    "TORCHDYNAMO_DISABLE": "1",  # vLLM's sampler is torch.compile'd: seconds of C++ compilation
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # bound OpenMP threads on a shared machine are 20-30 x slower
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
}
# Read by Ray when it starts, or is joined.
RAY_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_register_timeout_seconds": "300",  # on a busy machine a worker takes over 60 s; then ray.init hangs
}
# A Ray of our own (no RAY_ADDRESS) listens on this machine only, with all its ports; its metrics endpoint, which asks
# for no token, would be open to every interface. Ray calls the flag so because this is its default on Windows, macOS.
# ray.init(_node_ip_address="127.0.0.1") is no substitute: Ray turns that into the machine's outer address.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def ray_workers_environment() -> dict[str, str]:
    """What Ray's workers need: to find this package, wherever the driver was started, and to leave the hub alone where
    the driver does. Nothing secret: Ray writes environments down."""
    folder = str(Path(__file__).parents[2])
    passed = {name: os.environ[name] for name in ("HF_HUB_OFFLINE",) if name in os.environ}
    return passed | {"PYTHONPATH": os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))}


def prepare_environment() -> None:
    """Sets the variables that the environment lacks. RuntimeError where torch is imported already: it is too late."""
    if "torch" in sys.modules and "OMP_NUM_THREADS" not in os.environ:
        raise RuntimeError("torch was imported before prepare_environment(), so its threads cannot be limited any more")
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    import torch

    if not torch.cuda.is_available():
        # The engine in this process: one import of vLLM for all models.
        for name, value in (CPU_VARIABLES | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}).items():
            os.environ.setdefault(name, value)
