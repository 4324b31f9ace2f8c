"""Environment variables that torch, transformers and vLLM read when imported; imports none of them at the top."""

import os
import sys

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
