"""Responses from vLLM: one greedy and several sampled per question, in one pass of one engine."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from avar_rl.attention.roles import Markup
from avar_rl.evaluation.answering.questions import PromptLimits, Question, QuestionSet
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
    batch: Count = 256  # responses that an engine works at
    intervention: Intervention = NO_INTERVENTION  # on while the model generates

    @property
    def in_flight(self) -> int:
        """Requests that an engine is given at once. Those that wait are few: their images are in memory, decoded."""
        return self.batch + self.batch // 8 + 1

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


@dataclass(frozen=True)
class AnswerRequest:
    """A response that is wanted to a question: greedy (None), or the sample of that number. `key` is the caller's."""

    key: Hashable
    question: Question
    sample: int | None = None


Drawn = tuple[AnswerRequest, Response]


def generate(model: str, data: QuestionSet, processor, settings: GenerationSettings) -> list[Responses]:
    """Greedy and sampled responses to every question; the engine is shut down before this returns.

    `model` is a directory or the name of a model on the hub, `processor` its processor. ValueError: prompts and
    responses exceed the model's context.

    Tokens that stand for images or videos are never generated: they would make no sense without features, and such a
    response could not be run through the model again.
    """
    from tqdm import tqdm

    samples = (None, *range(settings.samples))
    requests = [AnswerRequest(place, asked, s) for place, asked in enumerate(data.questions) for s in samples]
    drawn: dict[tuple[Hashable, int | None], Response] = {}
    with (
        AnsweringEngine(model, data.limits, processor, settings) as engine,
        tqdm(total=len(requests), desc="responses", unit="response", disable=None) as bar,
    ):
        for finished in engine.answers(requests):
            drawn |= {(request.key, request.sample): response for request, response in finished}
            bar.update(len(finished))
    return [
        Responses(drawn[place, None], tuple(drawn[place, sample] for sample in range(settings.samples)))
        for place in range(len(data.questions))
    ]


class AnsweringEngine:
    """A vLLM engine that is fed while it runs, so that its batch stays full, and gives responses as they are finished.

    A sample depends on the seed of the settings, the question's id and the sample's number, not on what else is asked.
    As a context it is shut down at the end. ValueError: prompts and responses exceed the model's context.
    """

    def __init__(self, model: str, limits: PromptLimits, processor, settings: GenerationSettings) -> None:
        self._llm = start_engine(model, limits, settings)
        self._processor, self._settings = processor, settings
        self._never = never_sampled(processor)
        self._requests: dict[str, tuple[AnswerRequest, str]] = {}  # by vLLM's number; with the prefill

    @property
    def running(self) -> int:
        """Requests that wait or are answered."""
        return len(self._requests)

    def answers(self, requests: Iterable[AnswerRequest]) -> Iterator[list[Drawn]]:
        """The responses to `requests` as they are finished, in no order; each is taken when there is room for it."""
        for request in requests:
            while self.running >= self._settings.in_flight:
                yield self.step()
            self.add(request)
        while self.running:
            yield self.step()

    def add(self, request: AnswerRequest) -> None:
        """Hands a request to vLLM. ValueError: an image of its question is broken."""
        from vllm import SamplingParams

        how: dict[str, Any] = {"max_tokens": self._settings.max_new_tokens, "logit_bias": self._never}
        if request.sample is None:
            how["temperature"] = 0.0
        else:
            name = f"{self._settings.seed}/{request.question.conversation.id}/{request.sample}"
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
            how |= {"temperature": self._settings.temperature, "seed": seed}
        prompt: Any
        [prompt] = vllm_prompts([request.question], self._processor)
        [name] = self._llm.enqueue([prompt], [SamplingParams(**how)], use_tqdm=False)
        self._requests[_number(name)] = request, prefill_of(prompt["prompt"])

    def step(self) -> list[Drawn]:
        """The next step of the batch, and what it finished."""
        finished = []
        output: Any
        for output in self._llm.llm_engine.step():
            if output.finished:
                request, prefill = self._requests.pop(_number(output.request_id))
                [said] = output.outputs
                response = Response(said.text, tuple(said.token_ids), said.finish_reason == "length", prefill)
                finished.append((request, response))
        return finished

    def close(self) -> None:
        """Ends the engine and frees its memory."""
        _shut_down(self._llm)
        del self._llm
        gc.collect()

    def __enter__(self) -> AnsweringEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _number(name: str) -> str:
    """vLLM's number of a request; the names that it gives out have a random end as well."""
    return name.partition("-")[0]


def start_engine(model: str, limits: PromptLimits, settings: GenerationSettings):
    """A vLLM engine for prompts within `limits` and the responses. ValueError: they exceed the model's context."""
    import torch
    from vllm import LLM

    length = limits.tokens + settings.max_new_tokens
    check_context(model, limits, settings)
    hardware: dict[str, Any]
    if torch.cuda.is_available():
        hardware = {"dtype": "auto", "gpu_memory_utilization": 0.85}  # this process holds a CUDA context of its own
    else:
        hardware = {"dtype": "float32", "enforce_eager": True, "skip_mm_profiling": True}
        # A prompt that a step has no room for waits: vLLM takes back the draw after a part of one, which it cannot on a
        # CPU ("CPU Generator does not use offset").
        hardware["enable_chunked_prefill"] = False
        hardware["use_fp64_gumbel"] = True  # else a batch that is partly greedy ignores the samples' seeds on a CPU
    if settings.intervention.active:
        from avar_rl.evaluation.answering import vllm_intervention

        hardware |= vllm_intervention.engine_options(model, settings.intervention)
    engine = LLM(
        model,
        max_model_len=length,
        max_num_seqs=settings.batch,
        max_num_batched_tokens=max(8192, length),
        limit_mm_per_prompt={"image": limits.images, "video": 0},
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


def check_context(model: str, limits: PromptLimits, settings: GenerationSettings) -> None:
    """Raises ValueError where prompts and responses exceed the model's context."""
    from transformers import AutoConfig

    context = AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings
    if limits.tokens + settings.max_new_tokens > context:
        raise ValueError(
            f"the longest prompt ({limits.tokens} tokens) and {settings.max_new_tokens} new tokens "
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


def _shut_down(engine) -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    engine.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()
