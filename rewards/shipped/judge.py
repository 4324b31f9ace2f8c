"""A judge model behind an OpenAI-compatible endpoint (vLLM's server, a cloud's): an example of an asynchronous reward.

    avar.rewards: {judge: {weight: 0.2, model: Qwen/Qwen3-32B, base_url: "http://judge:8000/v1"}}

`gate: accuracy` has only right answers judged.
"""

import asyncio
import functools
import os
import re
from typing import Annotated
from weakref import WeakKeyDictionary

from pydantic import Field

from avar_rl.runtime.settings import Count, Positive, Whole
from rewards.plugin import reward
from rewards.sample import Sample

PROMPT = """You grade how well a response reasons about an image that you cannot see.

Question: {question}
Right answer: {gold}
Response: {response}

Is every step of the response needed, and does each follow from what it says it sees? Reply with one number from 0 \
(no) to 1 (yes) and nothing else."""

_NUMBER = re.compile(r"(?<![\w.])(?:0(?:\.\d+)?|1(?:\.0+)?|\.\d+)(?![\w.])")
_limits: WeakKeyDictionary = WeakKeyDictionary()  # event loop -> {concurrency: semaphore}


@reward
async def judge(
    sample: Sample,
    *,
    model: str,
    base_url: str,
    api_key_env: str = "OPENAI_API_KEY",
    prompt: str = PROMPT,
    max_tokens: Count = 16,
    concurrency: Count = 16,
    retries: Annotated[Whole, Field(ge=0)] = 5,
    timeout_s: Positive = 60.0,
) -> float | None:
    """The judge's number from 0 to 1 for a response; None where its reply holds none.

    Connection errors, time-outs and the statuses 408, 409, 429 and 5xx are tried again with growing pauses; what fails
    after `retries` more attempts raises openai.OpenAIError.

    Args:
        model: the judge's name at the endpoint.
        base_url: address of the endpoint, such as http://judge:8000/v1.
        api_key_env: environment variable, set on every node, that holds the key; where it is not set, the key is
            "none", which a local vLLM server takes.
        prompt: what the judge is asked, with {question}, {gold} and {response} to be filled in.
        max_tokens: limit on the reply.
        concurrency: limit on requests at the same time, in each reward worker (`reward.num_workers`).
        timeout_s: seconds for one attempt.
    """
    text = prompt.format(question=sample.question, gold=sample.gold, response=sample.response)
    async with _limit(concurrency):
        reply = await _client(base_url, api_key_env, retries, timeout_s, asyncio.get_running_loop()).create(
            model=model, messages=[{"role": "user", "content": text}], max_tokens=max_tokens, temperature=0.0
        )
    return parse(reply.choices[0].message.content or "")


def parse(reply: str) -> float | None:
    """The last number from 0 to 1 that stands alone in `reply`; None where there is none."""
    found = _NUMBER.findall(reply)
    return float(found[-1]) if found else None


@functools.lru_cache(maxsize=8)
def _client(base_url: str, api_key_env: str, retries: int, timeout_s: float, loop: asyncio.AbstractEventLoop):
    """One connection pool for each event loop."""
    import openai

    key = os.environ.get(api_key_env) or "none"  # a local vLLM server asks for none
    client = openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=retries, timeout=timeout_s)
    return client.chat.completions


def _limit(concurrency: int) -> asyncio.Semaphore:
    limits = _limits.setdefault(asyncio.get_running_loop(), {})
    return limits.setdefault(concurrency, asyncio.Semaphore(concurrency))
