"""The environment variables that verl, Ray and vLLM read at import time, set before any of them is imported."""

import os

from avar_rl.runtime.environment import CPU_VARIABLES, LOOPBACK, RAY_VARIABLES, VARIABLES
from avar_rl.verl_plugin.config.paths import LOG_VARIABLES

PLUGIN_MODULE = "avar_rl.verl_plugin.register"

# Each on its own line because each was found by a run that went wrong without it.
_CPU_VARIABLES = {
    "VERL_PLATFORM": "cpu",  # selects our CPU platform (cpu_platform.py)
    "VERL_ENGINE_DEVICE": "cuda",  # verl registers its engines for cuda and npu; this is its own look-up override
    "RAY_worker_register_timeout_seconds": RAY_VARIABLES["RAY_worker_register_timeout_seconds"],
    **CPU_VARIABLES,
    **VARIABLES,
}

_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": RAY_VARIABLES["RAY_USAGE_STATS_ENABLED"],
    "HYDRA_FULL_ERROR": "1",
    "TOKENIZERS_PARALLELISM": VARIABLES["TOKENIZERS_PARALLELISM"],
    "TRANSFORMERS_VERBOSITY": VARIABLES["TRANSFORMERS_VERBOSITY"],  # verl's way of calling processors warns once a row
    "TQ_LOGGING_LEVEL": "ERROR",  # verl's queue warns about its thread count some hundred times
    # verl tries every engine it knows, and we register no Megatron
    "PYTHONWARNINGS": "ignore:automodel engine,ignore:mindspeed engine,ignore:megatron engine,ignore:veomni engine,"
    "ignore:torchtitan engine",
}


def variables(profile: str) -> dict[str, str]:
    """The variables that a profile ("cpu" or "gpu") needs, without those that the caller has set already.

    Raises:
        ValueError: there is no such profile.
    """
    if profile not in ("cpu", "gpu"):
        raise ValueError(f"profile must be 'cpu' or 'gpu', not {profile!r}")
    wanted = _ALWAYS | (_CPU_VARIABLES if profile == "cpu" else {})
    wanted |= {} if os.environ.get("RAY_ADDRESS") else LOOPBACK
    return {name: value for name, value in wanted.items() if name not in os.environ}


def prepare(profile: str) -> None:
    """Sets the environment of this process and its children for a profile ("cpu" or "gpu").

    Call it before verl, Ray or vLLM is imported. ValueError: there is no such profile.
    """
    os.environ.update(variables(profile))
    modules = [name for name in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",") if name]
    if PLUGIN_MODULE not in modules:
        os.environ["VERL_USE_EXTERNAL_MODULES"] = ",".join([*modules, PLUGIN_MODULE])


def forwarded() -> dict[str, str]:
    """The variables of this process that Ray workers on other nodes need, where none is inherited from the driver."""
    names = [*_ALWAYS, *_CPU_VARIABLES, *LOG_VARIABLES, "VERL_USE_EXTERNAL_MODULES", "HF_HUB_OFFLINE"]
    names += ["WANDB_MODE", "AVAR_SPAN_MASS", "AVAR_NOTICE_SECONDS"]
    return {name: os.environ[name] for name in names if name in os.environ}
