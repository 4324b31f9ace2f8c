"""What a study is: a YAML file that names a recipe, seeds and arms, and what is compared; checked like a recipe."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from avar_rl.runtime.settings import Flag, NotNegative, Number, Positive, Whole, parse, settings

# What a study sets by itself, run by run, and what would undo its work.
TAKEN = ("OUT", "NAME", "SEED", "UNTIL", "FRESH", "DRY_RUN", "PLAN")
# What may come from the environment, as it says where a study runs and not what.
OF_THE_MACHINE = ("PROFILE", "STAGE_LIMIT", "NOTICE", "AVAR_VENV", "HF_HUB_OFFLINE", "RAY_ADDRESS", "GPU_MEMORY_GB")
_NAME = r"^[A-Za-z][\w-]*$"  # of a file, too

Name = Annotated[str, Field(pattern=_NAME)]
Seed = Annotated[Whole, Field(ge=0)]
# One word or number takes the place of the study's; a list is added to the study's list, joined by spaces.
Knob = Annotated[str, Field(strict=True)] | Whole | Number | list[str]


@settings
class Arm:
    """What one arm does differently.

    knobs: variables of the recipe, beside the study's own.
    overrides: arguments of the recipe (of its GRPO stage), behind the study's own.
    until: the last stage; None: all of the recipe's.
    seeds: None: the study's.
    about: one line for the page.
    """

    knobs: dict[str, Knob] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    until: str | None = None
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None
    about: str = ""


@settings
class Measure:
    """A number in a JSON file of a run: of `file`, in which {model} is the model's name, at the dotted `key`.

    models: the models that it is a measure of; []: all. What training.json says is GRPO's, not its base's.
    """

    key: str
    file: str = "evaluation/{model}.json"
    models: list[str] = field(default_factory=list)


@settings
class ArmComparison:
    """`arm` minus `against`, each ARM/MODEL, over the seeds that both have, paired by seed and question.

    kinds: only questions of these kinds; []: all.
    primary: predeclared as decisive; the others explore.
    least: of a claim that `arm` is above `against`: the smallest gain that would matter, in the measure's unit (0.03 of
        a share is 3 points), or with `relative` as a share of `against`'s mean. None: nothing is claimed.
    about: the hypothesis.
    """

    arm: str
    against: str
    measure: str = "accuracy"
    kinds: list[str] = field(default_factory=list)
    primary: Flag = False
    least: Positive | None = None
    relative: Flag = False
    about: str = ""


@settings
class CorrelationOfMeasures:
    """Measure x against measure y over checkpoints; models: only those of these names, [] for all."""

    x: str
    y: str
    models: list[str] = field(default_factory=list)


@settings
class Excerpt:
    """A table of the report that stands in another page, too, as models or as comparisons.

    page: a Markdown file, in which the table stands between `<!-- study STUDY: NAME -->` and `<!-- end of NAME -->`.
    models: ARM/MODEL → what the page calls it; columns: measure → its heading.
    comparisons: name → what the page calls it.
    """

    page: str
    models: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    comparisons: dict[str, str] = field(default_factory=dict)


@settings
class Resources:
    """What one recipe run takes on a Ray cluster: devices and cores of one node."""

    gpus: NotNegative = 0
    cpus: Positive = 1


# By name; what every evaluation has.
MEASURES = {name: Measure(name) for name in ("accuracy", "accuracy_sampled", "format", "vas", "image_mass")}
MEASURES |= {name: Measure(name) for name in ("system_mass", "response_tokens", "truncated")}


@settings
class Study:
    """A whole file. Paths are relative to the working directory.

    recipe: a script that ends with `run_recipe` (recipes/stages.sh).
    seeds, knobs, overrides: of every arm.
    out, results: folders of the runs, and of their small JSON files, tables and plots; "": by the study's name.
    measures: further ones, beside those of MEASURES; columns: those in the table of models.
    excerpts: tables that stand in other pages, by name.
    seconds: stage → how long it takes, for the estimate before one has been run.
    """

    recipe: str
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    name: str = ""
    about: str = ""
    seeds: Annotated[list[Seed], Field(min_length=1)] = field(default_factory=lambda: [0])
    knobs: dict[str, Knob] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    out: str = ""
    results: str = ""
    measures: dict[Name, Measure] = field(default_factory=dict)
    columns: list[str] = field(default_factory=lambda: ["accuracy", "accuracy_sampled", "vas", "image_mass"])
    comparisons: dict[Name, ArmComparison] = field(default_factory=dict)
    correlations: list[CorrelationOfMeasures] = field(default_factory=list)
    excerpts: dict[Name, Excerpt] = field(default_factory=dict)
    seconds: dict[str, Positive] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)

    @property
    def all_measures(self) -> dict[str, Measure]:
        """By name: those of every evaluation, and the study's own, which win."""
        return {**MEASURES, **self.measures}

    def seeds_of(self, arm: str) -> list[int]:
        own = self.arms[arm].seeds
        return self.seeds if own is None else own

    def knobs_of(self, arm: str) -> dict[str, Knob]:
        """The study's knobs and the arm's; lists are joined, anything else is replaced."""
        found = dict(self.knobs)
        for name, value in self.arms[arm].knobs.items():
            before = found.get(name)
            found[name] = [*before, *value] if isinstance(before, list) and isinstance(value, list) else value
        return found

    def overrides_of(self, arm: str) -> list[str]:
        return [*self.overrides, *self.arms[arm].overrides]


def load_study(path: Path) -> Study:
    """Reads and checks a study's file.

    Raises:
        ValueError: one sentence that names the file, the place and what may stand there.
    """
    try:
        study = parse(Study, _read(path), "")
        study = replace(
            study,
            name=study.name or path.stem,
            out=study.out or f"outputs/studies/{study.name or path.stem}",
            results=study.results or f"docs/study/{study.name or path.stem}",
        )
        _check_recipe(study)
        _check_arms(study)
        _check_analysis(study)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return study


def _read(path: Path) -> Any:
    import yaml

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    except OSError as error:
        raise ValueError(error.strerror or "cannot be read") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"not YAML ({' '.join(str(error).split())})") from error


def _loader():
    """PyYAML's safe loader, which would let a later key of the same name win: here it is a mistake."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.constructor.ConstructorError(None, None, f"found duplicate key {key}", node.start_mark)
            return super().construct_mapping(node, deep)

    return Loader


def _check_recipe(study: Study) -> None:
    recipe = Path(study.recipe)
    if not recipe.is_file():
        raise ValueError(f"recipe: {study.recipe}: no such script (paths are relative to {Path.cwd()})")
    known = recipe_knobs(recipe)
    for place, knobs in [("knobs", study.knobs), *((f"arms.{n}.knobs", arm.knobs) for n, arm in study.arms.items())]:
        for name, value in knobs.items():
            if name in TAKEN:
                raise ValueError(f"{place}.{name}: a study sets {name} by itself; leave it out")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                meant = f"did you mean {near[0]}?" if near else f"it reads {', '.join(sorted(known))}"
                raise ValueError(f"{place}: {study.recipe} reads no {name}; {meant}")
            common = study.knobs.get(name, value)
            if isinstance(common, list) != isinstance(value, list):
                raise ValueError(f"{place}.{name}: the study's is {common!r} and the arm's {value!r}: make both lists")


def recipe_knobs(recipe: Path) -> set[str]:
    """The variables in capitals that a recipe and what it sources take from outside, as `NAME=${NAME:-…}`."""
    text = recipe.read_text(encoding="utf-8")
    root = recipe.resolve().parents[1]
    for source in re.findall(r"^source (\S+\.sh)", text, flags=re.MULTILINE):
        if (root / source).is_file():
            text += (root / source).read_text(encoding="utf-8")
    return (set(re.findall(r"^([A-Z][A-Z0-9_]*)=\$\{\1:?-", text, flags=re.MULTILINE)) | {*OF_THE_MACHINE}) - {*TAKEN}


def _check_arms(study: Study) -> None:
    for place, seeds in [("seeds", study.seeds), *((f"arms.{n}.seeds", a.seeds or []) for n, a in study.arms.items())]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"{place}: a seed is listed twice in {seeds}")


def _check_analysis(study: Study) -> None:
    def measure(name: str, place: str) -> None:
        _known(name, study.all_measures, place, "measure")

    for name in study.columns:
        measure(name, "columns")
    for name, one in study.comparisons.items():
        measure(one.measure, f"comparisons.{name}.measure")
        arms = [side_of(side, f"comparisons.{name}", study.arms)[0] for side in (one.arm, one.against)]
        if not {*study.seeds_of(arms[0])} & {*study.seeds_of(arms[1])}:
            raise ValueError(f"comparisons.{name}: {arms[0]} and {arms[1]} have no seed in common")
        if one.arm == one.against:
            raise ValueError(f"comparisons.{name}: {one.arm} is compared with itself")
        if one.relative and one.least is None:
            raise ValueError(f"comparisons.{name}: relative says what `least` is a share of; give least, too")
    for place, pair in enumerate(study.correlations):
        measure(pair.x, f"correlations.{place}.x")
        measure(pair.y, f"correlations.{place}.y")
    for name, excerpt in study.excerpts.items():
        _check_excerpt(study, f"excerpts.{name}", excerpt)


def _check_excerpt(study: Study, place: str, excerpt: Excerpt) -> None:
    if bool(excerpt.comparisons) == bool(excerpt.models) or bool(excerpt.models) != bool(excerpt.columns):
        raise ValueError(f"{place}: give models and columns, or comparisons")
    for name in excerpt.columns:
        _known(name, study.all_measures, f"{place}.columns", "measure")
    for name in excerpt.comparisons:
        _known(name, study.comparisons, f"{place}.comparisons", "comparison")
    for side in excerpt.models:
        side_of(side, f"{place}.models", study.arms)


def side_of(text: str, place: str, arms: Mapping[str, Arm]) -> tuple[str, str]:
    """ARM/MODEL → arm and model. ValueError: it is not of that form, or there is no such arm."""
    arm, separator, model = text.partition("/")
    if not separator or not model:
        raise ValueError(f"{place}: {text!r} is not ARM/MODEL, as {next(iter(arms))}/grpo is")
    _known(arm, arms, place, "arm")
    return arm, model


def _known(name: str, known: Mapping[str, Any], place: str, what: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"{place}: no {what} {name!r}; {meant}")
