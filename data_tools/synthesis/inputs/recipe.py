"""The recipe of a synthesis: a YAML file (and `key=value` overrides), parsed once into frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

STAGES = ("describe", "reason", "anchor")
PROMPTS = Path(__file__).parents[1] / "prompts"


@dataclass(frozen=True)
class Source:
    """A file of samples (`data_tools.convert`); `rows`: how many of them, drawn by `seed`, None for all."""

    path: str
    rows: int | None = None


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible API. The key is read from the environment variable `key_env`; None: no key is needed."""

    base_url: str
    key_env: str | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None  # prompt and completion, as the API counts them
    timeout_s: float = 300.0  # of one request
    attempts: int = 8  # requests for one call before it has failed
    first_wait_s: float = 1.0  # then doubled, with jitter, unless the answer has a Retry-After
    longest_wait_s: float = 60.0
    give_up_after: int = 20  # calls in a row that failed for good: the endpoint is taken to be down


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens."""

    prompt: float = 0.0
    completion: float = 0.0


@dataclass(frozen=True)
class RayEngine:
    """A vLLM engine that Ray runs (`--ray` only): see `data_tools.synthesis.running.ray_engines`."""

    replicas: int = 1
    batch_size: int = 64
    engine: Mapping[str, Any] = field(default_factory=dict)  # vLLM's engine arguments
    placement: Mapping[str, Any] | None = None  # Ray's placement group of a replica; None: GPUs, one a rank


@dataclass(frozen=True)
class Stage:
    """One teacher. `prompt` is a file beside the recipe, or one of the package's own. `sampling` goes into the request
    as it is; `samples` is how often a row is asked (reason), or how many of its right samples go on (anchor)."""

    endpoint: str
    model: str
    prompt: str
    concurrency: int = 16
    samples: int = 1
    sampling: Mapping[str, Any] = field(default_factory=dict)
    price: Price = Price()
    workers: int = 1  # actors of this stage, under --ray
    ray_engine: RayEngine | None = None


@dataclass(frozen=True)
class Stages:
    describe: Stage
    reason: Stage
    anchor: Stage


@dataclass(frozen=True)
class Budget:
    """Over all runs of an output folder. Calls that are under way when it is spent still finish and count."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Filters:
    """Thresholds; None switches a filter off where it is allowed."""

    tokenizer: str = "Qwen/Qwen2.5-VL-7B-Instruct"  # folder with tokenizer.json, or hub name
    max_tokens: int = 4096  # of a response
    min_anchors: int = 2  # look-backs that name something of the image
    max_repetition: float | None = 0.3  # share of word 6-grams that occurred before in the same text
    near_duplicate: float | None = 0.9  # Jaccard similarity of word 3-grams of question and response
    near_duplicate_keep: int = 1  # texts of one cluster that are kept
    examples: int = 5  # kept of each filter for the report


@dataclass(frozen=True)
class Export:
    """`per_row`: at most so many responses of one question; `val_share`: the share of questions for validation."""

    per_row: int = 1
    val_share: float = 0.02


@dataclass(frozen=True)
class Recipe:
    sources: Mapping[str, Source]
    endpoints: Mapping[str, Endpoint]
    stages: Stages
    budget: Budget = Budget()
    filters: Filters = Filters()
    export: Export = Export()
    seed: int = 0
    folder: str = "."  # of the recipe file: prompts are looked for here first

    def stage(self, name: str) -> Stage:
        if name not in STAGES:
            raise ValueError(f"unknown stage {name!r}; there are {', '.join(STAGES)}")
        return getattr(self.stages, name)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("the recipe names no sources")
        for name in STAGES:
            stage = self.stage(name)
            if stage.endpoint not in self.endpoints:
                known = ", ".join(self.endpoints)
                raise ValueError(f"stages.{name}.endpoint: unknown endpoint {stage.endpoint!r}; there are {known}")
            for key in ("model", "messages", "n", "stream"):
                if key in stage.sampling:
                    raise ValueError(f"stages.{name}.sampling.{key} is not a sampling setting; leave it out")
        _check_bounds(self)


def _check_bounds(recipe: Recipe) -> None:
    for where, value in _numbers(recipe):
        name = where.rsplit(".", 1)[-1]
        if name in ("max_repetition", "near_duplicate", "val_share"):
            if not 0 <= value <= 1:
                raise ValueError(f"{where} must be between 0 and 1, not {value}")
        elif name in ("min_anchors", "examples", "seed", "prompt", "completion", "requests", "tokens"):
            if value < 0:
                raise ValueError(f"{where} must not be negative, not {value}")
        elif value <= 0:
            raise ValueError(f"{where} must be positive, not {value}")


def _numbers(recipe: Recipe):
    """(dotted name, value) of every number of the recipe, but those that only the teacher understands."""
    named = {f"sources.{k}": v for k, v in recipe.sources.items()}
    named |= {f"endpoints.{k}": v for k, v in recipe.endpoints.items()}
    named |= {f"stages.{k}": recipe.stage(k) for k in STAGES}
    named |= {f"stages.{k}.price": recipe.stage(k).price for k in STAGES}
    named |= {f"stages.{k}.ray_engine": recipe.stage(k).ray_engine for k in STAGES if recipe.stage(k).ray_engine}
    named |= {"budget": recipe.budget, "filters": recipe.filters, "export": recipe.export}
    for where, part in named.items():
        for item in fields(part):
            value = getattr(part, item.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield f"{where}.{item.name}", value


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file with `a.b=c` overrides.

    Raises:
        ValueError: no such file, not YAML, an unknown key or a value of the wrong kind (named), or a missing one.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such recipe")
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"override {override!r} is not of the form key=value")
    try:
        config = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    try:
        return _build(Recipe, {"folder": str(path.parent), **values}, "")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _build(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{where or 'the recipe'} must be a mapping, not {values!r}")
    known = {item.name: item for item in fields(cls)}
    prefix = f"{where}." if where else ""
    for key in values:
        if key not in known:
            raise ValueError(f"unknown key {prefix}{key}; known: {', '.join(sorted(known))}")
    for name, item in known.items():
        if item.default is MISSING and item.default_factory is MISSING and name not in values:
            raise ValueError(f"missing key {prefix}{name}")
    kinds = get_type_hints(cls)
    return cls(**{key: _value(kinds[key], value, f"{prefix}{key}") for key, value in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """`value` as the kind that a dataclass field is annotated with."""
    if get_origin(kind) in (UnionType, Union):
        if value is None:
            return None
        kind = next(part for part in get_args(kind) if part is not type(None))
    if is_dataclass(kind):
        return _build(kind, value, where)
    if get_origin(kind) is not None:  # Mapping[str, X]
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a mapping, not {value!r}")
        inner = get_args(kind)[1]
        return {key: item if inner is Any else _value(inner, item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} must be of type {kind.__name__}, not {value!r}")
    return value
