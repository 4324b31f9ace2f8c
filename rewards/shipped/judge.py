"""A judge model behind an OpenAI-compatible endpoint (vLLM's server, a cloud's): an example of an asynchronous reward.

    avar.rewards: {judge: {weight: 0.2, model: Qwen/Qwen3-32B, base_url: "http://judge:8000/v1"}}

`gate: accuracy` has only right answers judged.
"""

import asyncio
import functools
import logging
import re
from collections import Counter
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from pydantic import Field

from avar_rl.runtime.chat_client import ask_patiently, endpoint_client
from avar_rl.runtime.chat_replies import CallError, OddReplyError, Reply, well_formed
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
GIVE_UP_AFTER = 20  # calls in a row
_limits: WeakKeyDictionary = WeakKeyDictionary()  # event loop -> {concurrency: semaphore}
_unjudged: Counter[str] = Counter()  # endpoint and model -> calls in a row that brought no reply
_log = logging.getLogger(__name__)


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
    """The judge's number from 0 to 1 for a response; None where its reply holds none (logged as a warning).

    What the endpoint's answers mean says `avar_rl.runtime.chat_replies`, as for the teachers of the synthesis. None,
    too, for a request that is refused (too long, a safety filter), a reply that a content filter ended, and replies
    that are no chat completion, in all attempts.

    Args:
        model: the judge's name at the endpoint.
        base_url: address of the endpoint, such as http://judge:8000/v1.
        api_key_env: environment variable, set on every node, that holds the key; where it is not set, the key is
            "none", which a local vLLM server takes.
        prompt: what the judge is asked, with {question}, {gold} and {response} to be filled in.
        max_tokens: limit on the reply.
        concurrency: limit on requests at the same time, in each reward worker (`reward.num_workers`).
        retries: attempts after the first one, for connection errors, time-outs, 408, 409, 425, 429, 5xx and odd
            replies, after growing pauses.
        timeout_s: seconds for one attempt.

    Raises:
        NoReplyError: the endpoint cannot be reached or stays busy, refuses the key or the model, has a spent quota, or
            has refused or answered oddly GIVE_UP_AFTER calls in a row.
    """
    text = well_formed(prompt.format(question=sample.question, gold=sample.gold, response=sample.response))
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, "temperature": 0}
    client = _client(base_url, api_key_env, timeout_s, asyncio.get_running_loop())
    who = f"{model} at {base_url}"
    try:
        async with _limit(concurrency):
            reply = await ask_patiently(client, base_url, body, retries)
    except (CallError, OddReplyError) as error:
        _unjudged[who] += 1
        if _unjudged[who] >= GIVE_UP_AFTER:
            raise
        _log.warning("judge %s gave nothing for row %s: %s", who, sample.row_id, error)
        return None
    _unjudged[who] = 0
    return _value(reply, who, sample)


def _value(reply: Reply, who: str, sample: Sample) -> float | None:
    value = None if reply.finish == "content_filter" else parse(reply.text)
    if value is None:
        said = f"{reply.text[:80]!r} (finish_reason {reply.finish})"
        _log.warning("judge %s gave no number for row %s, but %s", who, sample.row_id, said)
    return value


def parse(reply: str) -> float | None:
    """The last number from 0 to 1 that stands alone in `reply`; None where there is none."""
    found = _NUMBER.findall(reply)
    return float(found[-1]) if found else None


@functools.lru_cache(maxsize=8)
def _client(base_url: str, api_key_env: str, timeout_s: float, loop: asyncio.AbstractEventLoop) -> Any:
    """One connection pool for each event loop."""
    return endpoint_client(base_url, api_key_env, timeout_s)


def _limit(concurrency: int) -> asyncio.Semaphore:
    limits = _limits.setdefault(asyncio.get_running_loop(), {})
    return limits.setdefault(concurrency, asyncio.Semaphore(concurrency))
