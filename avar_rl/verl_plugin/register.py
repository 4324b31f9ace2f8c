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


def _import_beside(verl_module: str, ours: str) -> None:
    wrapt.register_post_import_hook(lambda _: importlib.import_module(ours), verl_module)


_import_beside("verl.workers.engine", "avar_rl.verl_plugin.engine")
_import_beside("verl.trainer.ppo.v1", "avar_rl.verl_plugin.grpo.trainer")
