"""The environment variables that verl, Ray and vLLM read at import time, set before any of them is imported."""

import os

PLUGIN_MODULE = "avar_rl.verl_plugin.register"

# Each on its own line because each was found by a run that went wrong without it.
_CPU_VARIABLES = {
    "VERL_PLATFORM": "cpu",  # selects our CPU platform (cpu_platform.py)
    "VERL_ENGINE_DEVICE": "cuda",  # verl registers its engines for cuda and npu; this is its own look-up override
    "TORCHDYNAMO_DISABLE": "1",  # vLLM's sampler is torch.compile'd: 2 x 4 s of C++ compilation
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # bound OpenMP threads on a shared machine are 20-30 x slower
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",
}

_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "HYDRA_FULL_ERROR": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",  # verl's way of calling processors warns once a row
    "TQ_LOGGING_LEVEL": "ERROR",  # verl's queue warns about its thread count some hundred times
    # verl tries every engine it knows, and we register no Megatron
    "PYTHONWARNINGS": "ignore:automodel engine,ignore:mindspeed engine,ignore:megatron engine,ignore:veomni engine",
}


def variables(profile: str) -> dict[str, str]:
    """The variables of a profile ("cpu" or "gpu"), those that the caller has set already excepted."""
    if profile not in ("cpu", "gpu"):
        raise ValueError(f"profile must be 'cpu' or 'gpu', not {profile!r}")
    wanted = _ALWAYS | (_CPU_VARIABLES if profile == "cpu" else {})
    return {name: value for name, value in wanted.items() if name not in os.environ}


def prepare(profile: str) -> None:
    """Sets the environment of this process and its children. Call it before importing verl, Ray or vLLM."""
    os.environ.update(variables(profile))
    modules = [name for name in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",") if name]
    if PLUGIN_MODULE not in modules:
        os.environ["VERL_USE_EXTERNAL_MODULES"] = ",".join([*modules, PLUGIN_MODULE])


def forwarded() -> dict[str, str]:
    """What Ray workers on other nodes need, where no environment is inherited from the driver."""
    names = [*_ALWAYS, *_CPU_VARIABLES, "VERL_USE_EXTERNAL_MODULES", "HF_HUB_OFFLINE", "VERL_FILE_LOGGER_PATH"]
    names += ["TENSORBOARD_DIR", "WANDB_MODE"]
    return {name: os.environ[name] for name in names if name in os.environ}
