"""A CPU platform for verl 0.9.1, which ships CUDA and NPU platforms only. Selected by VERL_PLATFORM=cpu."""

import resource
import types
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _resident_bytes(device: object = None) -> int:
    return psutil.Process().memory_info().rss


def _peak_resident_bytes(device: object = None) -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _memory_info(device: object = None) -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def _nothing(*args: object, **kwargs: object) -> None:
    return None


class _CpuDeviceModule(types.ModuleType):
    """torch.cpu plus the torch.cuda-like functions that verl calls on a device module."""

    # "Is there an accelerator": verl's memory and checkpoint code then skips its device work.
    is_available = staticmethod(lambda: False)
    device_count = staticmethod(lambda: 1)
    set_device = synchronize = empty_cache = ipc_collect = reset_peak_memory_stats = staticmethod(_nothing)
    memory_allocated = memory_reserved = staticmethod(_resident_bytes)
    max_memory_allocated = max_memory_reserved = staticmethod(_peak_resident_bytes)
    mem_get_info = staticmethod(_memory_info)
    get_device_name = staticmethod(lambda device=None: "cpu")
    get_rng_state = staticmethod(lambda device=None: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, device=None: torch.set_rng_state(state))

    def __getattr__(self, name: str) -> object:
        return getattr(torch.cpu, name)


_DEVICE_MODULE = _CpuDeviceModule("avar_rl_cpu_device")


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """One CPU "device" per worker process, gloo collectives, weights handed over through shared memory."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return _DEVICE_MODULE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # never wins auto-detection: only VERL_PLATFORM=cpu selects it

    # Not an int, as verl declares: it calls tensor.to(get_device_id()), and an int is a number of an accelerator.
    def current_device(self) -> torch.device:  # pyright: ignore[reportIncompatibleMethodOverride]
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    # verl's own has a body of "...", from which a return type of None is inferred.
    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield

    def profiler_start(self) -> None:
        return None

    def profiler_stop(self) -> None:
        return None

    # Workers claim "GPU"s that ray.init(num_gpus=N) declares. A name of our own does not work: verl's
    # ResourcePoolManager counts only "GPU" and "NPU" (single_controller/ray/base.py:220), and vLLMReplica reads
    # get_accelerator_ids()[name] (vllm_async_server.py:1348), which knows Ray's own names only.
    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False  # weights then travel through shared memory (bucketed_weight_transfer.py, use_shm)

    def cudart(self) -> None:
        return None
