"""The environment variables that verl, Ray and vLLM read at import time, set before any of them is imported."""

import os

from avar_rl.runtime.environment import CPU_VARIABLES, VARIABLES
from avar_rl.verl_plugin.config.paths import LOG_VARIABLES

PLUGIN_MODULE = "avar_rl.verl_plugin.register"

# Each on its own line because each was found by a run that went wrong without it.
_CPU_VARIABLES = {
    "VERL_PLATFORM": "cpu",  # selects our CPU platform (cpu_platform.py)
    "VERL_ENGINE_DEVICE": "cuda",  # verl registers its engines for cuda and npu; this is its own look-up override
    "RAY_worker_register_timeout_seconds": "300",  # on a busy machine a worker takes over 60 s; then ray.init hangs
    **CPU_VARIABLES,
    **VARIABLES,
}

_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "HYDRA_FULL_ERROR": "1",
    "TOKENIZERS_PARALLELISM": VARIABLES["TOKENIZERS_PARALLELISM"],
    "TRANSFORMERS_VERBOSITY": VARIABLES["TRANSFORMERS_VERBOSITY"],  # verl's way of calling processors warns once a row
    "TQ_LOGGING_LEVEL": "ERROR",  # verl's queue warns about its thread count some hundred times
    # verl tries every engine it knows, and we register no Megatron
    "PYTHONWARNINGS": "ignore:automodel engine,ignore:mindspeed engine,ignore:megatron engine,ignore:veomni engine,"
    "ignore:torchtitan engine",
}

# A Ray of our own (no RAY_ADDRESS) listens on this machine only, with all its ports; its metrics endpoint, which asks
# for no token, would be open to every interface. Ray calls the flag so because this is its default on Windows, macOS.
# ray.init(_node_ip_address="127.0.0.1") is no substitute: Ray turns that into the machine's outer address.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def variables(profile: str) -> dict[str, str]:
    """The variables that a profile ("cpu" or "gpu") needs, without those that the caller has set already.

    Raises:
        ValueError: there is no such profile.
    """
    if profile not in ("cpu", "gpu"):
        raise ValueError(f"profile must be 'cpu' or 'gpu', not {profile!r}")
    wanted = _ALWAYS | (_CPU_VARIABLES if profile == "cpu" else {})
    wanted |= {} if os.environ.get("RAY_ADDRESS") else _LOOPBACK
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
