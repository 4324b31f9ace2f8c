"""Each image is processed once per prompt, not two or three times per response.

verl 0.9.1 runs the processor over a prompt's images for the prompt's tokens, for the batch that the reward sees, and
for the actor's inputs, and does so for every response (experimental/agent_loop/agent_loop.py and
trainer/ppo/v1/agent_loop_tq.py). All responses to a prompt are sampled in one process, so one cache there is enough.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import wrapt
import xxhash
from omegaconf import DictConfig
from PIL.Image import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_utils import SizeDict
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from verl.utils.torch_dtypes import PrecisionType

from avar_rl.runtime.pixels import PixelLimits
from avar_rl.verl_plugin.config.settings import GRPOSettings, parse

MB = 1 << 20
Value = TypeVar("Value")


class BoundedCache(Generic[Value]):
    """Values by key, up to a number of bytes; the least recently used go first. For many threads.

    Threads that ask for a key while another one makes its value wait for that value.
    """

    def __init__(self, limit_bytes: int, size: Callable[[Value], int]):
        self._limit, self._size = limit_bytes, size
        self._futures: OrderedDict[Hashable, Future[Value]] = OrderedDict()
        self._lock = threading.Lock()
        self.held_bytes = 0

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, from `make` where there is none; what that raises reaches everybody who waits for it."""
        with self._lock:
            known = self._futures.get(key)
            future = self._futures.setdefault(key, Future())
            self._futures.move_to_end(key)
        if known is not None:
            return known.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._futures[key]
            future.set_exception(error)
            raise
        future.set_result(value)
        with self._lock:
            self.held_bytes += self._size(value)
            self._drop_oldest()
        return value

    def _drop_oldest(self) -> None:
        for key in list(self._futures):
            if self.held_bytes <= self._limit:
                return
            if self._futures[key].done():
                self.held_bytes -= self._size(self._futures.pop(key).result())


def _nbytes(value: Mapping[str, Tensor] | Image) -> int:
    if isinstance(value, Image):
        return value.width * value.height * len(value.getbands())
    return sum(tensor.nbytes for tensor in value.values())


class SharedImageProcessor(wrapt.ObjectProxy):
    """An image processor of Qwen2-VL's kind that keeps what it has made of images, by their pixels and its settings.

    Whoever gets a result shares its tensors with others: nobody may change them in place.
    """

    def __init__(self, image_processor: Any, *, cache_bytes: int, dtype: torch.dtype):
        """
        Args:
            cache_bytes: how much is kept.
            dtype: of the pixel values, as the vision tower computes.
        """
        super().__init__(image_processor)
        self._self_cache: BoundedCache[Any] = BoundedCache(cache_bytes, _nbytes)
        self._self_dtype = dtype

    # A copy is the image processor without the cache.
    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__wrapped__.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.__wrapped__, memo)

    def __call__(self, images: Image | Sequence[Image], **kwargs: Any) -> BatchFeature:
        listed = [images] if isinstance(images, Image) else images
        key = (tuple(map(content, listed)), self.to_json_string(), repr(sorted(kwargs.items())))
        made = self._self_cache.get(key, lambda: self._process(images, kwargs))
        return BatchFeature(dict(made))

    def _process(self, images: Image | Sequence[Image], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        made = dict(self.__wrapped__(images, **kwargs))
        made["pixel_values"] = torch.as_tensor(made["pixel_values"]).to(self._self_dtype)
        return {name: torch.as_tensor(value) for name, value in made.items()}

    def shrunk(self, image: Image) -> Image:
        """An RGB image over the limit of pixels at the size that the processor will give it; any other as it is.

        The processor then leaves the size as it is: tokens and pixels are those of the image at its own size.
        """
        limits = PixelLimits.of(self)
        if not self.do_resize or image.width * image.height <= limits.most:
            return image
        bounds = (limits.side, limits.least, limits.most)
        size = smart_resize(image.height, image.width, *bounds)
        if smart_resize(*size, *bounds) != size:  # a strip under a low limit, which would shrink again
            return image
        return self._self_cache.get((content(image), size), lambda: self._resize(image, *size))

    def _resize(self, image: Image, height: int, width: int) -> Image:
        from torchvision.transforms.v2 import functional

        pixels = self.resize(functional.pil_to_tensor(image), SizeDict(height=height, width=width), self.resample)
        return functional.to_pil_image(pixels)


def content(image: Any) -> bytes:
    """A digest of an image's pixels: a PIL image's, or an array's."""
    if isinstance(image, Image):
        facts, data = (image.mode, image.size, image.getpalette(), image.info.get("transparency")), image.tobytes()
    else:
        array = np.ascontiguousarray(image)
        facts, data = (array.dtype.str, array.shape), array.data
    digest = xxhash.xxh3_128(repr(facts).encode())  # a hundredth of the time of SHA-256
    digest.update(data)
    return digest.digest()


def pixel_dtype(config: DictConfig) -> torch.dtype:
    """The type in which actor and reference policy compute, from verl's configuration; float32 where they differ.

    The vision tower casts its input to that type before anything else, so a cast here loses nothing.
    """
    found = set()
    for role in ("actor", "ref"):
        engine = config.actor_rollout_ref[role].get("fsdp_config")
        if engine is None:
            return torch.float32
        found.add(PrecisionType.to_dtype((engine.get("mixed_precision") or {}).get("param_dtype", "bf16")))
    return found.pop() if len(found) == 1 else torch.float32


def share_images(stock, worker, args, kwargs) -> None:
    """Around AgentLoopWorker.__init__: its processor, which all its agent loops use, gets the cache."""
    stock(*args, **kwargs)
    if worker.processor is not None:
        images = parse(GRPOSettings, worker.config).images
        worker.processor.image_processor = SharedImageProcessor(
            worker.processor.image_processor, cache_bytes=images.cache_mb * MB, dtype=pixel_dtype(worker.config)
        )
