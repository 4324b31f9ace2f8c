"""The recipe of a synthesis: a YAML file (and `key=value` overrides), parsed once into frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from avar_rl.runtime.settings import Count, NotNegative, Positive, Share, Whole, parse, settings

STAGES = ("describe", "reason", "anchor")
PROMPTS = Path(__file__).parents[1] / "prompts"

WholeNotNegative = Annotated[Whole, Field(ge=0)]


def _sampling(values: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("model", "messages", "n", "stream"):
        if key in values:
            raise ValueError(f"{key} is not a sampling setting; leave it out")
    return values


def _some(values: Mapping[str, Any]) -> Mapping[str, Any]:
    if not values:
        raise ValueError("the recipe names none")
    return values


@settings
class SampleFile:
    """A file of samples (`data_tools.convert`); `rows`: how many of them, drawn by the recipe's seed, None for all."""

    path: str
    rows: Count | None = None


@settings
class Endpoint:
    """An OpenAI-compatible API. The key is read from the environment variable `key_env`; None: no key is needed."""

    base_url: str
    key_env: str | None = None
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None  # prompt and completion, as the API counts them
    timeout_s: Positive = 300.0  # of one request
    attempts: Count = 8  # requests for one call before it has failed
    first_wait_s: Positive = 1.0  # then doubled, with jitter, unless the answer has a Retry-After
    longest_wait_s: Positive = 60.0
    give_up_after: Count = 20  # calls in a row that failed for good: the endpoint is taken to be down


@settings
class Price:
    """What tokens of the prompt and of the completion cost, in US dollars per million."""

    prompt: NotNegative = 0.0
    completion: NotNegative = 0.0


@settings
class RayEngine:
    """A vLLM engine that Ray runs (`--ray` only): see `data_tools.synthesis.running.ray_engines`."""

    replicas: Count = 1
    batch_size: Count = 64
    engine: Mapping[str, Any] = Field(default_factory=dict)  # vLLM's engine arguments
    placement: Mapping[str, Any] | None = None  # Ray's placement group of a replica; None: a GPU per rank


@settings
class Stage:
    """The teacher of one stage.

    `prompt` is a file beside the recipe, or one of the package's own. `sampling` goes into the request as it is;
    `samples` is how often a row is asked (reason), or how many of its right samples go on (anchor).
    """

    endpoint: str
    model: str
    prompt: str
    concurrency: Count = 16
    samples: Count = 1
    sampling: Annotated[Mapping[str, Any], AfterValidator(_sampling)] = Field(default_factory=dict)
    price: Price = Price()
    workers: Count = 1  # actors of this stage, under --ray
    ray_engine: RayEngine | None = None


@settings
class Stages:
    """The teachers of the three stages, in the order in which a row passes them."""

    describe: Stage
    reason: Stage
    anchor: Stage


@settings
class Budget:
    """Limits over all runs of an output folder. Calls that are under way when one is reached still finish and count."""

    requests: WholeNotNegative | None = None
    tokens: WholeNotNegative | None = None


@settings
class Filters:
    """Thresholds of the filters; None switches a filter off where it is allowed."""

    tokenizer: str = "Qwen/Qwen2.5-VL-7B-Instruct"  # folder with tokenizer.json, or hub name
    max_tokens: Count = 4096  # of a response
    min_anchors: WholeNotNegative = 2  # look-backs that name something of the image
    max_repetition: Share | None = 0.3  # share of word 6-grams that occurred before in the same text
    near_duplicate: Share | None = 0.9  # Jaccard similarity of word 3-grams of question and response
    near_duplicate_keep: Count = 1  # texts of one cluster that are kept
    examples: WholeNotNegative = 5  # kept of each filter for the report


@settings
class Export:
    """How many responses of one question are exported at most, and the share of questions for validation."""

    per_row: Count = 1
    val_share: Share = 0.02


@settings
class Recipe:
    """A whole synthesis: which rows, which teachers, and what is kept of what they say."""

    sources: Annotated[Mapping[str, SampleFile], AfterValidator(_some)]
    endpoints: Mapping[str, Endpoint]
    stages: Stages
    budget: Budget = Budget()
    filters: Filters = Filters()
    export: Export = Export()
    seed: Whole = 0
    folder: str = "."  # of the recipe file: prompts are looked for here first

    def stage(self, name: str) -> Stage:
        """The stage called `name`, one of STAGES.

        Raises:
            ValueError: there is no such stage.
        """
        if name not in STAGES:
            raise ValueError(f"unknown stage {name!r}; there are {', '.join(STAGES)}")
        return getattr(self.stages, name)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file with `a.b=c` overrides.

    Raises:
        ValueError: no such file, not YAML, an unknown key or a value of the wrong kind (named), or a missing one.
    """
    import yaml
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such recipe")
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"override {override!r} is not of the form key=value")
    try:
        config = OmegaConf.load(path)
        if not isinstance(config, DictConfig):
            raise ValueError("the recipe must be a mapping of keys to values")
        merged = OmegaConf.merge({"folder": str(path.parent)}, config, OmegaConf.from_dotlist(list(overrides)))
        recipe = parse(Recipe, OmegaConf.to_container(merged, resolve=True), "")
        _check_endpoints(recipe)
    except (ValueError, OSError, RecursionError, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    return recipe


def _check_endpoints(recipe: Recipe) -> None:
    for name in STAGES:
        endpoint = recipe.stage(name).endpoint
        if endpoint not in recipe.endpoints:
            known = ", ".join(recipe.endpoints)
            raise ValueError(f"stages.{name}.endpoint: unknown endpoint {endpoint!r}; there are {known}")
