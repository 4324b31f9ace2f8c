"""Recipe YAML -> verl's configuration, checked: unknown keys are errors, batch and GPU arithmetic is verified.

A recipe is a Hydra YAML over verl's own defaults (recipes/config). Hydra refuses unknown keys on the command line but
not in a YAML file, and verl ignores them; here both are errors.
"""

import difflib
import functools
import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from avar_rl.attention.varlen import NAME
from avar_rl.verl_plugin.config import attention
from avar_rl.verl_plugin.config.policy_loss import check_policy_loss
from avar_rl.verl_plugin.config.settings import GroupSettings

VERL_BASES = {"sft": "sft_trainer_engine", "grpo": "ppo_trainer"}


def load(recipe: str, overrides: list[str], stage: str) -> DictConfig:
    """Composes a recipe over verl's own defaults, checks its keys and chooses the attention implementation.

    The `avar` block is left to `settings.parse`.

    Args:
        recipe: path of a YAML, with or without its suffix.
        overrides: Hydra's `key=value`.
        stage: "sft" or "grpo".

    Raises:
        ValueError: one sentence that names the file, key or value at fault.
    """
    path = Path(recipe).with_suffix(".yaml").resolve()
    if not path.is_file():
        near = ", ".join(sorted(p.name for p in path.parent.glob("*.yaml")))
        there = f"YAML files there: {near}" if near else "recipes stand in recipes/config of avar_rl's repository"
        raise ValueError(f"no recipe {path}; {there}")
    try:
        config = _compose(path.parent, path.stem, overrides)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{path.name}: {str(error).splitlines()[0]}") from error
    except yaml.YAMLError as error:  # a name that stands twice, a bracket that is not closed
        raise ValueError(f"{path.name} is not a valid recipe: {' '.join(str(error).split())}") from error
    base = _verl_base(stage)
    unknown = [f for key in config if key != "avar" for f in _unknown_keys(base, config, key, "")]
    if unknown:
        raise ValueError(f"{path.name}: " + "; ".join(unknown))
    chosen = attention.choose(config, stage)
    if "RANK" not in os.environ:  # once a node, not in every rank
        print(f"avar {stage}: {chosen}", file=sys.stderr)
    return config


def _compose(directory: Path, name: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(directory), version_base=None):
        return compose(name, overrides=[f"hydra.searchpath=[file://{_verl_config_dir()}]", *overrides])


@functools.cache
def _verl_base(stage: str) -> DictConfig:
    return _compose(_verl_config_dir(), VERL_BASES[stage], [])


def _verl_config_dir() -> Path:
    import verl.trainer

    return Path(verl.trainer.__file__).parent / "config"


def _unknown_keys(base: DictConfig, config: DictConfig, key: Any, where: str) -> list[str]:
    """Keys of `config` that neither verl's YAML nor the dataclass behind it (its `_target_`) knows."""
    name = f"{where}{key}"
    allowed = set(base) | _dataclass_fields(base)
    if where == "ray_kwargs.ray_init.":
        allowed |= _ray_init_arguments()
    if where.endswith("wrap_policy."):
        allowed |= {"transformer_layer_cls_to_wrap"}  # read by verl's FSDP2, and not in its YAML
    if key not in allowed:
        near = difflib.get_close_matches(str(key), [str(k) for k in allowed], n=3)
        return [f"unknown key {name}" + (f" (did you mean {', '.join(near)}?)" if near else "")]
    below, ours = (OmegaConf.select(base, key) if key in base else None), config._get_node(key)
    if not isinstance(ours, DictConfig) or ours._is_none() or not isinstance(below, DictConfig) or not len(below):
        return []  # a value, or a mapping that verl leaves open ({})
    return [fault for inner in ours for fault in _unknown_keys(below, ours, inner, f"{name}.")]


def _dataclass_fields(node: DictConfig) -> set[str]:
    target = node.get("_target_") if "_target_" in node else None
    if target is None:
        return set()
    cls = get_class(target)
    return {item.name for item in fields(cls)} if is_dataclass(cls) else set()


def _ray_init_arguments() -> set[str]:
    """verl hands `ray_kwargs.ray_init` to ray.init as it is."""
    import ray

    return set(inspect.signature(ray.init).parameters)


def check_sft(config: DictConfig) -> None:
    """Checks that verl's dataclasses accept a cold start, and that its batch divides over ranks and micro-batches.

    Raises:
        ValueError: the batch does not divide.
    """
    from verl.utils.config import omega_conf_to_dataclass

    for node in ("engine", "optim", "checkpoint", "profiler"):
        omega_conf_to_dataclass(config[node])
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    if config.data.train_batch_size % ranks:
        raise ValueError(f"data.train_batch_size={config.data.train_batch_size} is not a multiple of the {ranks} ranks")
    per_rank = config.data.train_batch_size // ranks
    if not config.data.use_dynamic_bsz and per_rank % config.data.micro_batch_size_per_gpu:
        raise ValueError(
            f"{per_rank} samples a rank are not a multiple of data.micro_batch_size_per_gpu="
            f"{config.data.micro_batch_size_per_gpu}"
        )
    data, ulysses = config.data, config.engine.ulysses_sequence_parallel_size
    if data.use_dynamic_bsz:
        _check_token_limit(
            "data.max_token_len_per_gpu", data.max_token_len_per_gpu, ulysses, data.max_length, "data.max_length"
        )


def _check_token_limit(name: str, limit: int, ulysses: int, longest: int, what: str) -> None:
    """verl packs sequences up to the limit of the GPUs that share one, and stops at a longer one: in the first step,
    for GRPO after a whole rollout (utils/seqlen_balancing.py, rearrange_micro_batches)."""
    if limit * ulysses < longest:
        raise ValueError(
            f"{name}={limit} is less than the {longest} tokens of a sequence ({what}): raise it to "
            f"{-(-longest // ulysses)}"
        )


def check_grpo(config: DictConfig) -> None:
    """Checks that verl's dataclasses and its own validate_config accept a GRPO stage, and what they leave unchecked.

    Raises:
        ValueError: names the setting at fault.
    """
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    omega_conf_to_dataclass(config.actor_rollout_ref.ref.fsdp_config)  # verl renames keys of `ref` before it builds it
    omega_conf_to_dataclass(config.algorithm)
    try:
        validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    except AssertionError as error:
        raise ValueError(f"verl refuses the configuration: {error}") from error
    if config.algorithm.adv_estimator == "grpo" and config.actor_rollout_ref.rollout.n < 2:
        raise ValueError("actor_rollout_ref.rollout.n=1: GRPO compares the responses of a group; use at least 2")
    rollout = config.actor_rollout_ref.rollout
    if rollout.logprobs_mode == "raw_logprobs" and rollout.temperature != 1.0:
        raise ValueError(
            f"rollout.temperature={rollout.temperature} scales the actor's log-probabilities but, with "
            "logprobs_mode=raw_logprobs, not the rollout's; set rollout.logprobs_mode=processed_logprobs"
        )
    check_policy_loss(config)
    _check_micro_batches(config)
    _check_lengths(config)
    devices = config.trainer.nnodes * config.trainer.n_gpus_per_node
    parallel = config.actor_rollout_ref.rollout.tensor_model_parallel_size
    if devices % parallel:
        raise ValueError(f"rollout.tensor_model_parallel_size={parallel} does not divide the {devices} devices")


def _check_micro_batches(config: DictConfig) -> None:
    """verl finds these out in the first step, minutes after the start."""
    parts, devices = config.actor_rollout_ref, config.trainer.nnodes * config.trainer.n_gpus_per_node
    samples = config.data.train_batch_size * parts.rollout.n // devices
    mini = parts.actor.ppo_mini_batch_size * parts.rollout.n // devices
    sizes = {
        "actor.ppo_micro_batch_size_per_gpu": (mini, parts.actor, "use_dynamic_bsz"),
        "rollout.log_prob_micro_batch_size_per_gpu": (samples, parts.rollout, "log_prob_use_dynamic_bsz"),
        "ref.log_prob_micro_batch_size_per_gpu": (samples, parts.ref, "log_prob_use_dynamic_bsz"),
    }
    for name, (total, part, dynamic) in sizes.items():
        micro = part[name.split(".")[1]]
        if not part[dynamic] and micro and total % micro:
            raise ValueError(f"{total} samples a device are not a multiple of actor_rollout_ref.{name}={micro}")


def _check_lengths(config: DictConfig) -> None:
    """Prompt and response fit each pass's token limit and the rollout engine's longest sequence."""
    parts, prompt, response = config.actor_rollout_ref, config.data.max_prompt_length, config.data.max_response_length
    longest, what = prompt + response, "data.max_prompt_length + data.max_response_length"
    limits = {
        "actor.ppo_max_token_len_per_gpu": (parts.actor, "use_dynamic_bsz"),
        "rollout.log_prob_max_token_len_per_gpu": (parts.rollout, "log_prob_use_dynamic_bsz"),
        "ref.log_prob_max_token_len_per_gpu": (parts.ref, "log_prob_use_dynamic_bsz"),
    }
    ulysses = max(parts.actor.ulysses_sequence_parallel_size, parts.actor.fsdp_config.ulysses_sequence_parallel_size)
    for name, (part, dynamic) in limits.items():
        if part[dynamic]:
            _check_token_limit(f"actor_rollout_ref.{name}", part[name.split(".")[1]], ulysses, longest, what)
    room = parts.rollout.max_model_len
    if room is not None and room < longest:
        raise ValueError(
            f"actor_rollout_ref.rollout.max_model_len={room} is less than {what} = {prompt} + {response}: raise it to "
            f"{longest}"
        )


def check_groups(config: DictConfig, groups: GroupSettings, rewards: Mapping[str, float]) -> None:
    """Checks that our trainer can filter and normalise groups as the configuration says.

    Args:
        rewards: the weights of the recipe's rewards, by name.

    Raises:
        ValueError: names the setting at fault.
    """
    algorithm = config.algorithm
    if algorithm.filter_groups.enable and algorithm.filter_groups.metric != "accuracy":
        raise ValueError(
            f"algorithm.filter_groups.metric={algorithm.filter_groups.metric}: groups are filtered by accuracy, never "
            "by a shaped sum (in which groups without a signal differ, too); set it to accuracy"
        )
    wants_accuracy = {
        "algorithm.filter_groups.enable=True": algorithm.filter_groups.enable,
        "avar.groups.mask_uniform_accuracy=True": groups.mask_uniform_accuracy,
    }
    for setting, applies in wants_accuracy.items():
        if applies and "accuracy" not in rewards:
            raise ValueError(f"{setting} needs the reward accuracy; list it in avar.rewards (weight 0 only reports it)")
    if algorithm.adv_estimator == "gdpo":
        raise ValueError(
            "algorithm.adv_estimator=gdpo: verl 0.9.1's trainer does not hand it the parts; keep grpo and set "
            "avar.groups.normalise=parts, which calls the same function with the parts of avar.rewards"
        )
    if groups.normalise == "parts" and (algorithm.adv_estimator != "grpo" or algorithm.use_kl_in_reward):
        raise ValueError("avar.groups.normalise=parts needs algorithm.adv_estimator=grpo and use_kl_in_reward=False")


def refuse_lost_masses(config: DictConfig) -> None:
    """Refuses settings under which rewards, token weights and losses would have no attention masses to work with.

    Raises:
        ValueError: names the first such setting.
    """
    known = ("sdpa", "flash_attention_2", NAME, "eager")
    refused = without_our_pass(config) | {
        f"override_config.attn_implementation is not recorded; use sdpa, flash_attention_2, {NAME} or eager": (
            config.actor_rollout_ref.model.override_config.attn_implementation not in known
        )
    }
    for reason, applies in refused.items():
        if applies:
            raise ValueError(f"attention rewards need span masses, but {reason} (or set their weights to 0)")


def without_our_pass(config: DictConfig) -> dict[str, bool]:
    """Settings under which the actor's forward pass before a step is none, or none of our engine's, and whether they
    apply."""
    actor = config.actor_rollout_ref.actor
    return {
        "algorithm.rollout_correction.bypass_mode=True skips the forward pass that records": (
            config.algorithm.rollout_correction.bypass_mode
        ),
        "trainer.use_v1=False uses a trainer without our hooks": not config.trainer.use_v1,
        f"trainer.v1.trainer_mode={config.trainer.v1.trainer_mode} is not 'sync', the one our trainer replaces": (
            config.trainer.v1.trainer_mode != "sync"
        ),
        f"actor.strategy={actor.strategy} has no engine of ours (fsdp2 or fsdp)": not actor.strategy.startswith("fsdp"),
        "actor.use_prefix_grouper=True shares prompts between responses": actor.use_prefix_grouper,
    }
