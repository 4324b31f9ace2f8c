"""Reinforcement learning: `avar grpo RECIPE [key=value …]`, verl's GRPO on Ray with the combined reward."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.stopping import INTERRUPTED, OUT_OF_TIME, Stopped, StopSignals, leave
from avar_rl.verl_plugin import cluster
from avar_rl.verl_plugin.config.command_line import parse_arguments

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from avar_rl.verl_plugin.config.settings import GRPOSettings

DESCRIPTION = (
    "Reinforcement learning: GRPO with the combined reward, by verl's trainer on Ray. Starts a Ray of its own unless "
    "RAY_ADDRESS names a cluster."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs GRPO.

    Returns 0 when done, 1 when it failed, 2 after a user's mistake, 75 where a member of the run was lost, 124 out of
    time (a step, or all), 130 interrupted.
    """
    arguments = parse_arguments(argv, "grpo", DESCRIPTION)
    from avar_rl.verl_plugin.config import environment

    environment.prepare(arguments.profile)
    from omegaconf import OmegaConf

    from avar_rl.verl_plugin import resume
    from avar_rl.verl_plugin.config import paths, preflight, tags
    from avar_rl.verl_plugin.watch.metrics_file import keep_until, metrics_path

    try:
        config, ours = checked(arguments.recipe, arguments.overrides)
        if arguments.dry_run:
            print(OmegaConf.to_yaml(config, resolve=True))
            return 0
        cluster.refuse_nodes_without_ray(config.trainer.nnodes)
        preflight.check_stage(config, "grpo")
        for note in tags.tag_notes(config.actor_rollout_ref.model.path, config.data.apply_chat_template_kwargs):
            print(f"avar grpo: note: {note}", file=sys.stderr)
        step = resume.prepare(config, "grpo")
        ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
        cluster.refuse_other_ranks(Path(config.trainer.default_local_dir), step, ranks)
        paths.prepare_logs(config, "grpo")
        keep_until(metrics_path(config.trainer.project_name, config.trainer.experiment_name), step)
    except ValueError as error:
        print(f"avar grpo: {error}", file=sys.stderr)
        return 2
    return _train(config, ours, environment.forwarded())


def checked(recipe_path: str, overrides: list[str]) -> tuple[DictConfig, GRPOSettings]:
    """A GRPO stage's configuration, composed and checked as far as that needs no files.

    Raises:
        ValueError: one sentence that names the setting at fault.
    """
    from avar_rl.verl_plugin.config import lora, paths, plug_ins, recipe, settings

    config = recipe.load(recipe_path, overrides, stage="grpo")
    paths.make_absolute(config)
    ours = settings.parse(settings.GRPOSettings, config)
    if ours.needs_masses():
        recipe.refuse_lost_masses(config)
    plug_ins.check_plug_ins(config, ours)
    recipe.check_grpo(config)
    recipe.check_groups(config, ours.groups, ours.reward_set().weights)
    plug_ins.switch_on_entropy(config, ours)
    lora.check_lora(config.actor_rollout_ref.model, rollout=True)
    return config, ours


def _train(config: DictConfig, ours: GRPOSettings, variables: dict[str, str]) -> int:
    """Starts Ray, runs verl's task, and always shuts Ray down. Returns an exit status as `main` does."""
    import ray
    import ray.exceptions
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    from avar_rl.verl_plugin import stop_request
    from avar_rl.verl_plugin.checkpoints import full_disk, where_it_resumes
    from avar_rl.verl_plugin.health.watcher import MemberLostError, watched

    limit = f"avar.guard.total_minutes={ours.guard.total_minutes:g}"
    signals = StopSignals(stop_request.on_signal, leave)
    signals.install()
    try:
        context = _start_ray(config, variables)
        signals.install()  # ray.init has put a handler of its own in place
        print(f"Ray dashboard: {f'http://{context.dashboard_url}' if context.dashboard_url else 'off'}", flush=True)
        for node in ray.nodes():
            print(f"Ray metrics: http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", flush=True)
        watched(
            lambda: run_ppo(config, task_runner_class=TaskRunnerV1),
            seconds=ours.guard.total_minutes * 60,
            out_of_time=lambda: stop_request.out_of_time(limit),
        )
        return 0
    except KeyboardInterrupt:
        status, sentence = INTERRUPTED, "Interrupted."
    except TimeoutError:
        status, sentence = OUT_OF_TIME, f"{limit} is over."
    except MemberLostError as error:
        status, sentence = error.loss.status, f"{error}."
    except cluster.CannotJoinError as error:
        print(f"avar grpo: {error}", file=sys.stderr)
        return 2
    except ray.exceptions.RayError as error:
        if isinstance(cause := getattr(error, "cause", None), Stopped):
            print(cause, file=sys.stderr)
            return cause.status
        print(error, file=sys.stderr)
        full = full_disk(Path(config.trainer.default_local_dir), error)
        status, sentence = 1, full or f"The cause, last line of the above: {_root_cause(error)}"
    finally:
        ray.shutdown()
    print(f"{sentence} {where_it_resumes(Path(config.trainer.default_local_dir))}", file=sys.stderr)
    return status


def _start_ray(config: DictConfig, variables: dict[str, str]) -> Any:
    """A local Ray with dashboard, or the cluster of RAY_ADDRESS; every worker gets our environment variables."""
    from omegaconf import OmegaConf
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    wanted: Any = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)  # keyword arguments of ray.init
    environment = get_ppo_ray_runtime_env(config)
    environment["env_vars"] = environment["env_vars"] | variables | {"TRANSFER_QUEUE_ENABLE": "1"}
    context = cluster.start(wanted, environment)
    if cluster.address():
        cluster.wait_for_devices(config.trainer.nnodes, config.trainer.n_gpus_per_node)
    return context


def _root_cause(error: BaseException) -> str:
    from ray.exceptions import RayError

    cause = getattr(error, "cause", None) or error.__cause__
    if isinstance(cause, BaseException):
        return _root_cause(cause)
    lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
    return lines[-1 if isinstance(error, RayError) else 0]  # Ray's text is a traceback
