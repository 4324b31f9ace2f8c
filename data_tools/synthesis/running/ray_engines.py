"""A stage played by vLLM engines inside Ray, through Ray's own LLM batch processor: no HTTP, one engine per replica.

The journal is the same: a request that it knows is not generated again, and an answer counts when it is durable.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from math import inf
from typing import Any

from data_tools.synthesis.calls.journal import Completion, Failure
from data_tools.synthesis.calls.request import Request
from data_tools.synthesis.inputs.recipe import Recipe, Stage
from data_tools.synthesis.inputs.selection import Row
from data_tools.synthesis.inputs.tokens import token_counter
from data_tools.synthesis.outcomes.stages import Tracer

# CPUs of a stage of the processor that only moves text: whole ones would leave a small machine none for the engine.
LIGHT = 0.1
ANSWER = ("request", "generated_text", "num_input_tokens", "num_generated_tokens")  # a row that was answered …
ERROR = "__inference_error__"  # … and what Ray's processor adds to every row


class Needed:
    """Pickled rows -> the requests of one stage that are still to be made, as rows of Ray's processor."""

    def __init__(self, recipe: Recipe, stage: str, keeper: Any):
        self._recipe, self._stage, self._keeper = recipe, stage, keeper
        self._tracer = Tracer(recipe, token_counter(recipe.filters.tokenizer))

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list]]:
        for row in batch["row"]:
            for request in self._missing(pickle.loads(row)):
                yield {"request": [pickle.dumps(request)]}

    def _missing(self, row: Row) -> list[Request]:
        """Nothing where the row has ended, waits for an earlier stage, or the budget is spent."""
        import ray

        known: dict = {}
        while needed := self._tracer.needed(row, known.get):
            found = ray.get(self._keeper.get_many.remote([request.key for request in needed]))
            known |= found
            missing = [request for request in needed if request.key not in found]
            if missing:
                mine = [request for request in missing if request.stage == self._stage]
                return [request for request in mine if self._paid()]
        return []

    def _paid(self) -> bool:
        import ray

        reason = ray.get(self._keeper.charge.remote())
        if reason:
            ray.get(self._keeper.halt.remote(reason))
        return reason is None


class Recorder:
    """Generated texts -> the journal. `context`: the tokens that prompt and answer may have together."""

    def __init__(self, stage: Stage, context: float, keeper: Any):
        self._stage, self._context, self._keeper = stage, context, keeper

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import ray

        done = [self._done(*values) for values in zip(*(batch[name] for name in (*ANSWER, ERROR)), strict=True)]
        ray.get([self._keeper.record.remote(result) for result in done])
        return {"row": batch["request"]}

    def _done(self, request: bytes, text: str, prompt: int, completion: int, error: str) -> Completion | Failure:
        asked: Request = pickle.loads(request)
        about = (asked.key, asked.row, asked.stage, asked.sample)
        if error:
            return Failure(*about, str(error)[:300], 1)
        room = self._context - prompt
        finish = "length" if completion >= min(room, self._stage.sampling.get("max_tokens", inf)) else "stop"
        return Completion(*about, self._stage.model, str(text), finish, int(prompt), int(completion), 1, 0.0)


def engine_pass(data: Any, recipe: Recipe, name: str, keeper: Any) -> Any:
    """The pass of stage `name` over pickled rows; each row of the result is a request that was answered.

    Args:
        data: a Ray dataset with a column `row` (a pickled Row).
        keeper: the handle of the Keeper's actor.

    Raises:
        ValueError: the stage has no `ray_engine` in the recipe.
    """
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    stage, engine = recipe.stage(name), recipe.stage(name).ray_engine
    if engine is None:
        raise ValueError(f"stages.{name} has no ray_engine")
    sampling = dict(stage.sampling)
    template = sampling.pop("chat_template_kwargs", None)
    light = {"num_cpus": LIGHT}
    config = vLLMEngineProcessorConfig(
        model_source=stage.model,
        engine_kwargs=dict(engine.engine),
        batch_size=engine.batch_size,
        concurrency=engine.replicas,
        placement_group_config=None if engine.placement is None else dict(engine.placement),
        should_continue_on_error=True,
        log_engine_metrics=False,  # vLLM's Ray metrics import ray.serve, which nothing else here needs
        prepare_multimodal_stage={"enabled": name == "describe", "chat_template_content_format": "openai", **light},
        chat_template_stage=light,
        tokenize_stage=light,
        detokenize_stage=light,
    )

    def preprocess(row: dict[str, Any]) -> dict[str, Any]:
        request: Request = pickle.loads(row["request"])
        seed = {"seed": request.sample} if stage.samples > 1 else {}
        return {"messages": request.messages(), "sampling_params": {**seed, **sampling}, "request": row["request"]}

    def postprocess(row: dict[str, Any]) -> dict[str, Any]:  # rows with an error go past it
        return {name: row[name] for name in ANSWER}

    arguments = {"recipe": recipe, "stage": name, "keeper": keeper}
    pool = ray.data.ActorPoolStrategy(size=1)
    data = data.map_batches(Needed, fn_constructor_kwargs=arguments, compute=pool, batch_size=16, num_cpus=LIGHT)
    extra = {"builder_kwargs": {"chat_template_kwargs": template}} if template else {}
    maps = {"preprocess_map_kwargs": light, "postprocess_map_kwargs": light}
    data = build_processor(config, preprocess=preprocess, postprocess=postprocess, **maps, **extra)(data)
    recording = {"stage": stage, "context": engine.engine.get("max_model_len", inf), "keeper": keeper}
    return data.map_batches(Recorder, fn_constructor_kwargs=recording, compute=pool, batch_size=None, num_cpus=LIGHT)
