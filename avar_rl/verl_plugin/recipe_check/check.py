"""All stages of a recipe, composed and checked in one process, with the estimates of what they need."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from avar_rl.estimate import GB, ModelSizes, image_tokens
from avar_rl.evaluation.__main__ import check_arguments
from avar_rl.runtime.recipe_plan import RecipeStage
from avar_rl.verl_plugin.config import preflight
from avar_rl.verl_plugin.config.command_line import parse_arguments
from avar_rl.verl_plugin.grpo import run as grpo
from avar_rl.verl_plugin.recipe_check import machine, needs, numbers, plan, report
from avar_rl.verl_plugin.recipe_check.model_sizes import model_sizes
from avar_rl.verl_plugin.sft import run as sft


class FaultsAndNotes:
    """What is at fault, and what is worth knowing: sentences, each once."""

    def __init__(self) -> None:
        self.faults: dict[str, None] = {}
        self.notes: dict[str, None] = {}

    def fault(self, sentence: str) -> None:
        self.faults[sentence] = None

    def note(self, sentence: str) -> None:
        self.notes[sentence] = None

    def attempt(self, function: Callable, *arguments: Any) -> Any:
        """The function's result; None where it raised ValueError, whose sentence is kept as a fault."""
        try:
            return function(*arguments)
        except ValueError as error:
            self.fault(str(error))
            return None


def check(stages: Sequence[RecipeStage], out: Path, profile: str, *, verbose: bool) -> int:
    """Prints what is at fault. `verbose`: also the commands, the training stages' configurations and the estimates.

    Args:
        stages: those that are still to be run.
        out: the recipe's folder, absolute.

    Returns: the exit status, 0 or 2.
    """
    found = FaultsAndNotes()
    configs = _configurations(stages, found, verbose)
    for sentence in plan.missing_files(stages, out):
        found.fault(sentence)
    for stage, config in configs.items():
        _check_files(stage, config, out, found)
        _check_family(stage, config, stages, found)
    for stage in stages:
        if stage.module == plan.EVALUATION:
            _check_evaluation(stage, stages, found)
    models = _Models(stages, found)
    numbered = [found.attempt(_numbers, stage, config, models, stages) for stage, config in configs.items()]
    trained = [stage for stage in numbered if stage is not None]
    for stage in trained:
        _check_limits(stage, plan.pixel_cap(stages), found)
    here = found.attempt(machine.look)
    elsewhere = verbose and profile == "gpu" and here is not None and not here.cards
    listed = [] if here is None else _needs(trained, here, profile, out, found)
    if elsewhere:  # a dry run on a laptop: not the machine that is meant
        listed = [needs.uncompared(need) for need in listed]
    if here is not None and profile == "gpu":
        _check_cards(trained, here, found, running=not verbose)
    for need in listed:
        for sentence, keep in ((need.refusal(), found.fault), (need.warning(), found.note)):
            if sentence is not None:
                keep(sentence)
    if verbose or found.faults:
        report.show(listed, trained, here)
    _say(found, listed, verbose)
    return 2 if found.faults else 0


def _say(found: FaultsAndNotes, listed: Sequence[needs.Need], verbose: bool) -> None:
    sys.stdout.flush()
    for note in found.notes:
        print(f"avar recipe: note: {note}", file=sys.stderr)
    for fault in found.faults:
        print(f"avar recipe: {fault}", file=sys.stderr)
    if not verbose and not found.faults:
        sizes = [f"{need.what} {need.size / GB:.1f} GB" for need in listed]
        print(f"== checked before the first stage{': ' if sizes else ''}{'; '.join(sizes)}", flush=True)


def _configurations(
    stages: Sequence[RecipeStage], found: FaultsAndNotes, verbose: bool
) -> dict[RecipeStage, DictConfig]:
    """The training stages' configurations, without those that are at fault."""
    configs = {}
    for stage in stages:
        if verbose:
            print(f"# stage {stage.name}: {' '.join(stage.words)}")
        kind = plan.TRAINERS.get(stage.module)
        if kind is None:
            continue
        arguments = parse_arguments(stage.arguments, kind, "")
        checked = found.attempt({"sft": sft, "grpo": grpo}[kind].checked, arguments.recipe, arguments.overrides)
        if checked is not None:
            configs[stage] = checked[0]
            if verbose:
                print(OmegaConf.to_yaml(checked[0], resolve=True))
    return configs


def _check_files(stage: RecipeStage, config: DictConfig, out: Path, found: FaultsAndNotes) -> None:
    """Data files that are there, or that no earlier stage makes."""
    for key in ("train_files", "val_files"):
        value = config.data[key]
        paths = [value] if isinstance(value, str) else list(value or [])
        paths = [path for path in paths if Path(path).is_file() or not plan.inside(path, out)]
        found.attempt(preflight.check_files, paths, f"stage {stage.name}: data.{key}")


def _check_evaluation(stage: RecipeStage, stages: Sequence[RecipeStage], found: FaultsAndNotes) -> None:
    """The options of an evaluation, and those of its models that no stage makes."""
    models = found.attempt(check_arguments, stage.arguments) or {}
    for path in models.values():
        name = plan.origin(path, stages)
        if name is not None and name == path:
            found.attempt(preflight.check_model, name)


def _check_family(stage: RecipeStage, config: DictConfig, stages: Sequence[RecipeStage], found: FaultsAndNotes) -> None:
    """Whether the family of the model that a stage starts from can do what it asks, where that model is there."""
    kind = plan.TRAINERS[stage.module]
    path = config.model.path if kind == "sft" else config.actor_rollout_ref.model.path
    model = plan.origin(path, stages)
    if model is not None and (Path(model) / "config.json").is_file():
        found.attempt(preflight.check_family, config, kind, model)


class _Models:
    """The sizes of the models that stages start from, each built once; (None, None) for one that is not known yet."""

    def __init__(self, stages: Sequence[RecipeStage], found: FaultsAndNotes):
        self.stages, self.found = stages, found
        self._known: dict[str | None, tuple[ModelSizes | None, Any]] = {None: (None, None)}

    def of(self, path: str) -> tuple[ModelSizes | None, Any]:
        name = plan.origin(path, self.stages)
        if name not in self._known:
            assert name is not None
            self._known[name] = (None, None)
            self.found.attempt(preflight.check_model, name)
            if (Path(name) / "config.json").is_file() or _on_the_hub(name):
                self._known[name] = self._sizes(name)
        return self._known[name]

    def _sizes(self, name: str) -> tuple[ModelSizes | None, Any]:
        try:
            return model_sizes(name)
        except ValueError as error:
            self.found.note(f"{error}: memory and disk could not be checked")
            return None, None


def _on_the_hub(name: str) -> bool:
    return not name.startswith(("/", ".", "~")) and name.count("/") == 1 and not Path(name).exists()


def _numbers(
    stage: RecipeStage, config: DictConfig, models: _Models, stages: Sequence[RecipeStage]
) -> numbers.StageNumbers:
    if plan.TRAINERS[stage.module] == "sft":
        return numbers.sft_numbers(stage.name, config, *models.of(config.model.path))
    path = config.actor_rollout_ref.model.path
    return numbers.grpo_numbers(stage.name, config, *models.of(path), plan.pixel_cap(stages))


def _needs(
    trained: Sequence[numbers.StageNumbers], here: machine.Machine, profile: str, out: Path, found: FaultsAndNotes
) -> list[needs.Need]:
    listed = [need for stage in trained for need in needs.card_needs(stage, here)] if profile == "gpu" else []
    listed += needs.host_needs(trained, here)
    free = {}
    for folder in dict.fromkeys([out, *(stage.checkpoints for stage in trained)]):
        try:
            free[folder] = machine.free_disk(folder)
        except OSError as error:
            found.fault(
                f"nothing can be written to {folder} ({error.strerror}): choose another OUT, or free some space"
            )
    if out in free and any(stage.model for stage in trained):
        listed.append(needs.disk_need(trained, free[out]))
    return listed


def _check_limits(stage: numbers.StageNumbers, pixel_cap: int | None, found: FaultsAndNotes) -> None:
    """Heads over the cards of a rollout engine, and the largest image within a prompt."""
    if stage.rollout is None or stage.model is None:
        return
    heads, parallel = stage.model.heads, stage.rollout.tensor_parallel
    if heads % parallel:
        able = ", ".join(str(cards) for cards in range(1, 9) if heads % cards == 0)
        found.fault(
            f"rollout.tensor_model_parallel_size={parallel} does not divide the model's {heads} attention heads: set "
            f"TENSOR_PARALLEL to one of {able}"
        )
    if pixel_cap is not None and image_tokens(pixel_cap, stage.model) >= stage.prompt:
        found.fault(
            f"MAX_PIXELS={pixel_cap} lets images of {image_tokens(pixel_cap, stage.model)} tokens through, and a whole "
            f"prompt has MAX_PROMPT={stage.prompt}: lower MAX_PIXELS or raise MAX_PROMPT"
        )


def _check_cards(
    trained: Sequence[numbers.StageNumbers],
    here: machine.Machine,
    found: FaultsAndNotes,
    *,
    running: bool,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """As many cards as the stages want. `running`: the recipe is about to start, so that there must be some."""
    wanted = max((stage.training.gpus // stage.nodes for stage in trained), default=0)
    if here.cards and len(here.cards) < wanted:
        found.fault(
            f"{wanted} GPUs a node are wanted, and this machine has {len(here.cards)}: set NGPUS={len(here.cards)}"
        )
    if running and not here.cards and not environment.get("RAY_ADDRESS"):
        found.fault("nvidia-smi lists no GPU here: run the recipe where there are some, or PROFILE=cpu for a miniature")
    if here.card is None:
        found.note(f"the memory of a card is not known here; {machine.CARD_VARIABLE}=80 states it")
