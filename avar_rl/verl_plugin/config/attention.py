"""Which attention implementation a stage trains with: the one place that decides it, and the sentence that says so."""

import importlib

from omegaconf import DictConfig, OmegaConf

AUTO = "auto"
_MODEL = {"sft": "model", "grpo": "actor_rollout_ref.model"}


def choose(config: DictConfig, stage: str) -> str:
    """Replaces `override_config.attn_implementation=auto` of the stage's model by an implementation, in place.

    On GPUs that is flash-attn where it is installed, else torch's packed attention; on a CPU torch's packed attention
    under `use_remove_padding`, else SDPA. What a user has named stands.

    Args:
        config: the stage's configuration.
        stage: "sft" or "grpo".

    Returns: a sentence that names the implementation and why it was taken.

    Raises:
        ValueError: flash-attn is named, and cannot run here.
    """
    from avar_rl.attention.varlen import NAME

    key = f"{_MODEL[stage]}.override_config.attn_implementation"
    named = OmegaConf.select(config, key) or AUTO
    on_cpu = OmegaConf.select(config, "avar.profile") == "cpu"
    absent = "there is no GPU" if on_cpu else _why_not_flash_attn()
    if named == "flash_attention_2" and absent:
        raise ValueError(
            f"{key}=flash_attention_2: {absent}; set it to {AUTO} for torch's own packed attention, or, on GPUs, "
            "install flash-attn with AVAR_FLASH_ATTN=1 bash recipes/setup.sh"
        )
    if named != AUTO:
        chosen, why = named, f"as {key} says"
    elif on_cpu and not OmegaConf.select(config, f"{_MODEL[stage]}.use_remove_padding"):
        chosen, why = "sdpa", "a CPU, padded batches"
    elif absent:
        chosen, why = NAME, f"torch's packed attention: {absent}"
    else:
        chosen, why = "flash_attention_2", "flash-attn is installed"
    _set(config, f"{_MODEL[stage]}.override_config", chosen)
    return f"attention: {chosen} ({why})"


def _set(config: DictConfig, key: str, implementation: str) -> None:
    """verl writes what stands in override_config into the config.json of checkpoints, where it would ask for the same
    implementation wherever they are loaded; not where it has a node model_config, which then holds the rest."""
    rest = dict(OmegaConf.select(config, key) or {})
    rest.pop("attn_implementation", None)
    rest = {"model_config": rest.get("model_config", rest)}
    OmegaConf.update(config, key, {"attn_implementation": implementation, **rest}, merge=False, force_add=True)


def _why_not_flash_attn() -> str:
    """Why flash-attn cannot be used on this machine; empty where it can."""
    try:
        importlib.import_module("flash_attn")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "flash_attn"
        return "flash-attn is not installed" if missing else f"flash-attn does not import ({error})"
    return ""
