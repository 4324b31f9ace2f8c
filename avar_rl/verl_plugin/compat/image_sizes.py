"""Images reach the processor at their own size, so that one rule decides their pixels everywhere: its limits.

verl 0.9.1 reads the images of a row with qwen_vl_utils, which resizes them to limits of its own (4 to 16,384 tokens)
before the processor resizes them to the model's. Two resizings in a row need not end where one does: 1000 x 100 pixels
become 1008 x 112, which has another ratio. So a prompt could get other image tokens in training than `avar validate`
counted, than vLLM makes of the same image, and than the evaluation sees.
"""

from __future__ import annotations

import asyncio

from avar_rl.runtime.images import open_image, rgb
from avar_rl.verl_plugin.compat.image_cache import SharedImageProcessor


def read_unresized(stock, data_set, args, kwargs):
    """Around RLHFDataset._process_multi_modal_info(messages, …) → (images, videos, audios).

    Videos and audios, which this project does not train on, are left to verl, with the images beside them.
    """
    messages = kwargs["messages"] if "messages" in kwargs else args[0]
    contents = [message["content"] for message in messages if isinstance(message.get("content"), list)]
    parts = [part for content in contents for part in content if isinstance(part, dict)]
    if {part.get("type") for part in parts} & {"video", "audio"}:
        return stock(*args, **kwargs)
    return [rgb(open_image(part)) for part in parts if part.get("type") == "image"] or None, None, None


async def shrink_large(stock, agent_loop, args, kwargs):
    """Around AgentLoopBase.process_multi_modal_info: vLLM gets images over the limit as the processor will see them.

    The same tokens and pixels come out, but a photograph of 12 megapixels does not travel once for every response.
    """
    data = await stock(*args, **kwargs)
    shared = getattr(agent_loop.processor, "image_processor", None)
    # With settings of the call's own, the processor's limits are not the ones that count.
    if data.get("images") and isinstance(shared, SharedImageProcessor) and not agent_loop.mm_processor_kwargs:
        images, loop = data["images"], asyncio.get_running_loop()
        data["images"] = await loop.run_in_executor(None, lambda: [shared.shrunk(image) for image in images])
    return data
