"""One request to an OpenAI-compatible endpoint, through the openai client: its reply, or what the trouble means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.chat_replies import PassingError, Reply, read_reply, shortened, trouble

if TYPE_CHECKING:
    import openai


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
