"""A request to an OpenAI-compatible endpoint, through the openai client: its reply, or what the trouble means."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.chat_replies import PassingError, Reply, pause_s, read_reply, shortened, trouble

if TYPE_CHECKING:
    import openai

NO_KEY = "none"  # the client wants a key, and a local vLLM server asks for none
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0  # a Retry-After of minutes would hold up who asks


def endpoint_client(base_url: str, key_env: str, timeout_s: float) -> openai.AsyncOpenAI:
    """A client that does not try again by itself; its key is in the environment variable `key_env`, if it is set."""
    import openai

    key = os.environ.get(key_env) or NO_KEY
    return openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=timeout_s)


async def ask_once(
    client: openai.AsyncOpenAI,
    url: str,
    body: Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    secret: str = "",
) -> Reply:
    """The reply to one request.

    Args:
        client: with `max_retries=0`; whoever asks decides whether to ask again.
        url: of the chat completions, whole.
        body: the request.
        secret: the key, which is struck out of messages.

    Raises:
        NoReplyError: there is none; see `avar_rl.runtime.chat_replies` for its kinds.
    """
    import httpx2
    import openai

    try:
        # The client's own chat.completions.create walks through every message: two thirds more processor time.
        options: Any = {"headers": dict(headers or {})}
        answer = await client.post(url, body=dict(body), cast_to=httpx2.Response, options=options)
    except openai.APIStatusError as error:
        response = error.response
        raise trouble(error.status_code, response.content, response.headers, secret) from error
    except openai.APITimeoutError as error:
        raise PassingError(f"no answer in {client.timeout} s") from error
    except (openai.APIConnectionError, openai.APIResponseValidationError) as error:
        raise PassingError(shortened(f"{error} {error.__cause__ or ''}", secret)) from error
    return read_reply(answer.content, secret)


async def ask_patiently(client: openai.AsyncOpenAI, base_url: str, body: Mapping[str, Any], retries: int) -> Reply:
    """The reply to one request, which is sent again up to `retries` times, after growing pauses, for passing trouble.

    Args:
        base_url: address of the endpoint, such as http://judge:8000/v1.

    Raises:
        NoReplyError: there is none; see `ask_once`.
    """
    url, secret = f"{base_url.rstrip('/')}/chat/completions", client.api_key if client.api_key != NO_KEY else ""
    for sent in itertools.count(1):
        try:
            return await ask_once(client, url, body, secret=secret)
        except PassingError as error:
            if sent > retries:
                raise
            await asyncio.sleep(min(pause_s(sent, error, FIRST_PAUSE_S, 8.0), LONGEST_PAUSE_S))
    raise AssertionError("it counts without end")
