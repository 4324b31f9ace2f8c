"""Responses from vLLM: one greedy and several sampled per question, in one pass of one engine."""

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from avar_rl.attention.roles import Markup
from avar_rl.evaluation.answering.questions import Question, QuestionSet
from avar_rl.intervention import NO_INTERVENTION, Intervention
from avar_rl.runtime.settings import Count, NotNegative, Whole, settings
from rewards.sample import prefill_of


@settings
class GenerationSettings:
    """How responses are drawn. ValueError: a value out of its bounds."""

    max_new_tokens: Count = 1024
    samples: Annotated[Whole, Field(ge=0)] = 4  # per question, beside the greedy response
    temperature: NotNegative = 1.0  # of the samples
    seed: Whole = 0
    tensor_parallel: Count = 1  # GPUs that share the model; 1 on a CPU
    intervention: Intervention = NO_INTERVENTION  # on while the model generates

    def __post_init__(self) -> None:
        if self.samples and not self.temperature > 0:
            raise ValueError(
                f"temperature is {self.temperature}; samples need one above 0 (greedy is always evaluated)"
            )


@dataclass(frozen=True)
class Response:
    """A generated text, its token ids (an end-of-text token included), and whether the limit cut it off.

    prefill: what the chat template has written of the text, see `rewards.sample.Sample`.
    """

    text: str
    ids: tuple[int, ...]
    truncated: bool
    prefill: str = ""


@dataclass(frozen=True)
class Responses:
    """The responses to one question: the greedy one, and those drawn at a temperature."""

    greedy: Response
    sampled: tuple[Response, ...]


def generate(model: str, data: QuestionSet, processor, settings: GenerationSettings) -> list[Responses]:
    """Greedy and sampled responses to every question; the engine is shut down before this returns.

    `model` is a directory or the name of a model on the hub, `processor` its processor. ValueError: prompts and
    responses exceed the model's context.

    Tokens that stand for images or videos are never generated: they would make no sense without features, and such a
    response could not be run through the model again.
    """
    engine = start_engine(model, data, settings)
    try:
        return _draw(engine, data.questions, processor, settings)
    finally:
        _shut_down(engine)
        del engine
        gc.collect()


def start_engine(model: str, data: QuestionSet, settings: GenerationSettings):
    """A vLLM engine for `model`, large enough for `data` and the responses. ValueError: they exceed its context."""
    import torch
    from vllm import LLM

    length = data.longest_prompt + settings.max_new_tokens
    _check_context(model, length, settings)
    if torch.cuda.is_available():
        hardware = {"dtype": "auto", "gpu_memory_utilization": 0.85}  # this process holds a CUDA context of its own
    else:
        hardware = {"dtype": "float32", "enforce_eager": True, "skip_mm_profiling": True}
    if settings.intervention.active:
        from avar_rl.evaluation.answering import vllm_intervention

        hardware |= vllm_intervention.engine_options(model, settings.intervention)
    engine = LLM(
        model,
        max_model_len=length,
        max_num_seqs=256,
        max_num_batched_tokens=max(8192, length),
        limit_mm_per_prompt={
            "image": max(len(question.conversation.images) for question in data.questions),
            "video": 0,
        },
        seed=settings.seed,
        tensor_parallel_size=settings.tensor_parallel,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **hardware,
    )
    if settings.intervention.active:
        from avar_rl.evaluation.answering import vllm_intervention

        vllm_intervention.follow_requests(engine)
    return engine


def _check_context(model: str, length: int, settings: GenerationSettings) -> None:
    from transformers import AutoConfig

    context = AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings
    if length > context:
        raise ValueError(
            f"the longest prompt ({length - settings.max_new_tokens} tokens) and {settings.max_new_tokens} new tokens "
            f"exceed the {context} tokens that {model} can hold; lower --max-new-tokens"
        )


def vllm_prompts(questions: Sequence[Question], processor) -> list[dict[str, Any]]:
    """The prompts of the questions in the form that vLLM takes: text, and decoded images where there are any."""
    prompts: list[dict[str, Any]] = []
    for asked in (question.conversation for question in questions):
        prompts.append({"prompt": asked.text(processor)})
        if asked.images:
            prompts[-1]["multi_modal_data"] = {"image": asked.pictures()}
    return prompts


def never_sampled(processor) -> dict[int, float]:
    """Token ids that stand for images and videos, pads and brackets → vLLM's logit bias, whose range ends at -100."""
    markup = Markup.from_tokenizer(processor.tokenizer)
    return dict.fromkeys((markup.image_pad, markup.video_pad, markup.vision_start, markup.vision_end), -100.0)


def _draw(engine, questions: Sequence[Question], processor, settings: GenerationSettings) -> list[Responses]:
    from vllm import SamplingParams

    common = {"max_tokens": settings.max_new_tokens, "logit_bias": never_sampled(processor)}
    kinds = [SamplingParams(temperature=0.0, **common)]
    if settings.samples:
        kinds.append(SamplingParams(temperature=settings.temperature, n=settings.samples, **common))
    prompts = vllm_prompts(questions, processor)
    # One call for both, so that the batch stays full until the end.
    outputs = engine.generate(prompts * len(kinds), [kind for kind in kinds for _ in prompts], use_tqdm=os.isatty(2))
    prefills = [prefill_of(prompt["prompt"]) for prompt in prompts] * len(kinds)
    drawn = [
        tuple(Response(c.text, tuple(c.token_ids), c.finish_reason == "length", prefill) for c in output.outputs)
        for output, prefill in zip(outputs, prefills, strict=True)
    ]
    greedy, sampled = drawn[: len(prompts)], drawn[len(prompts) :] or [()] * len(prompts)
    return [Responses(first[0], rest) for first, rest in zip(greedy, sampled, strict=True)]


def _shut_down(engine) -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    engine.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()
