"""Imported by verl in every process, before anything else of verl: registers our parts with verl's registries.

Import-light: the engine and the trainer are imported only where verl imports its own.
"""

import importlib
import os

import wrapt

from avar_rl.verl_plugin.compat import patches

patches.apply_everywhere()
if os.environ.get("VERL_PLATFORM") == "cpu":
    patches.apply_cpu()
    importlib.import_module("avar_rl.verl_plugin.compat.cpu_platform")


def _after(module: str, ours: str, function: str) -> None:
    """Calls a function of ours as soon as `module` has been imported."""
    wrapt.register_post_import_hook(lambda _: getattr(importlib.import_module(ours), function)(), module)


# Before verl builds a model, which may ask for this attention by name.
_after("transformers.modeling_utils", "avar_rl.attention.varlen", "register")
_after("verl.models.transformers.qwen2_vl", "avar_rl.verl_plugin.compat.patched_attention", "install")


def _log_to_one_file(tracking) -> None:
    importlib.import_module("avar_rl.verl_plugin.watch.metrics_file").add_to_the_file(tracking)


def _read_images_unresized(rl_dataset) -> None:
    sizes = importlib.import_module("avar_rl.verl_plugin.compat.image_sizes")
    wrapt.wrap_function_wrapper(rl_dataset, "RLHFDataset._process_multi_modal_info", sizes.read_unresized)


def _share_images(agent_loop) -> None:
    sizes = importlib.import_module("avar_rl.verl_plugin.compat.image_sizes")
    cache = importlib.import_module("avar_rl.verl_plugin.compat.image_cache")
    wrapt.wrap_function_wrapper(agent_loop, "AgentLoopBase.process_multi_modal_info", sizes.shrink_large)
    wrapt.wrap_function_wrapper(agent_loop, "AgentLoopWorker.__init__", cache.share_images)


wrapt.register_post_import_hook(_log_to_one_file, "verl.utils.tracking")
wrapt.register_post_import_hook(_read_images_unresized, "verl.utils.dataset.rl_dataset")
wrapt.register_post_import_hook(_share_images, "verl.experimental.agent_loop.agent_loop")


def _import_beside(verl_module: str, ours: str) -> None:
    wrapt.register_post_import_hook(lambda _: importlib.import_module(ours), verl_module)


_import_beside("verl.workers.engine", "avar_rl.verl_plugin.engine")
_import_beside("verl.trainer.ppo.v1", "avar_rl.verl_plugin.grpo.trainer")
