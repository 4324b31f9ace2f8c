"""One OpenAI-compatible endpoint: rate limits, back-off, and what its errors do to a call and to the run.

Passing errors are tried again, those of one request fail its call, and those of the set-up stop the run; which is which
says `avar_rl.runtime.chat_replies`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from avar_rl.runtime.chat_client import ask_once
from avar_rl.runtime.chat_replies import CallError, PassingError, Reply, SetupError, pause_s
from data_tools.synthesis.calls.journal import Completion, Failure
from data_tools.synthesis.calls.request import Request
from data_tools.synthesis.inputs.recipe import Endpoint, Stage


class StoppedError(Exception):
    """Ends the run: nothing new is asked. The message says why."""


class Teacher:
    """Asks one endpoint. Use it as an asynchronous context.

    `charge` is awaited before each request and may raise StoppedError; `share`: one of how many workers it is, each
    with its part of the rate limits.

    Raises:
        ValueError: the environment variable named by `key_env` holds no key.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        charge: Callable[[], Awaitable[None]],
        stop: threading.Event,
        share: int = 1,
    ):
        self.name, self.endpoint, self._charge, self._stop, self._share = name, endpoint, charge, stop, share
        self._key = _key(name, endpoint)
        self._where = f"endpoint {name} at {endpoint.base_url}"
        self._url = f"{endpoint.base_url.rstrip('/')}/chat/completions"  # whole: the client parses it once less
        self._failed_in_a_row = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Teacher:
        import openai

        # aiohttp below: a third less processor time per call.
        client = openai.AsyncOpenAI(
            base_url=self.endpoint.base_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=self.endpoint.timeout_s,
            http_client=openai.DefaultAioHttpClient(timeout=self.endpoint.timeout_s),
        )
        self._client = await self._stack.enter_async_context(client)
        self._requests = _limiter(self.endpoint.requests_per_minute, self._share)
        self._tokens = _limiter(self.endpoint.tokens_per_minute, self._share)
        self._owed, self._paying = 0, asyncio.Lock()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def ask(self, request: Request, settings: Stage) -> Completion | Failure:
        """The finished call, or its failure when the endpoint refused it or `attempts` requests were in vain.

        Raises:
            StoppedError: the endpoint refuses the key or the model, is down, or the run is to stop.
        """
        started, sent = time.monotonic(), 0
        about = (request.key, request.row, request.stage, request.sample)
        while True:
            await self._wait_for_limits()
            if self._stop.is_set():
                raise StoppedError("stopped")
            await self._charge()
            sent += 1
            try:
                reply = await self._send(request, settings)
                break
            except CallError as error:
                return Failure(*about, str(error), sent)
            except PassingError as error:
                if sent >= self.endpoint.attempts:
                    self._count_failure(error)
                    return Failure(*about, f"{error} ({sent} requests)", sent)
                await self._sleep(pause_s(sent, error, self.endpoint.first_wait_s, self.endpoint.longest_wait_s))
        self._failed_in_a_row = 0
        seconds = round(time.monotonic() - started, 4)
        tokens = reply.prompt_tokens, reply.completion_tokens
        return Completion(*about, settings.model, full_text(reply), reply.finish, *tokens, sent, seconds)

    def _count_failure(self, error: PassingError) -> None:
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self.endpoint.give_up_after:
            raise StoppedError(
                f"{self._where} seems to be down: {self._failed_in_a_row} calls in a row failed, the last: {error}"
            ) from error

    async def _send(self, request: Request, settings: Stage) -> Reply:
        body = {"model": settings.model, "messages": request.messages(), **settings.sampling}
        headers = {"Idempotency-Key": f"{request.key[:40]}-{request.sample}"}
        try:
            reply = await ask_once(self._client, self._url, body, headers=headers, secret=self._key or "")
        except SetupError as error:
            raise StoppedError(self._refusal(error)) from error
        self._owed += reply.prompt_tokens + reply.completion_tokens
        return reply

    async def _wait_for_limits(self) -> None:
        """Tokens are paid for by the next calls, when their number is known: an answer is not held back."""
        if self._tokens:
            async with self._paying:
                while self._owed > 0:
                    part = min(self._owed, int(self._tokens.max_rate))
                    self._owed -= part
                    await self._tokens.acquire(part)
        if self._requests:
            await self._requests.acquire()

    def _refusal(self, error: SetupError) -> str:
        if error.quota:
            return f"{self._where}: the account's quota is spent: {error}"
        if error.status == 404:
            return f"{self._where} knows no such model or path: {error}"
        variable = self.endpoint.key_env
        key = f"the key in ${variable}" if variable else "a request without a key (key_env)"
        return f"{self._where} refuses {key} (HTTP {error.status})"

    async def _sleep(self, seconds: float) -> None:
        """Sleeps in short pieces, so that a run which stops need not wait for a Retry-After of minutes."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            await asyncio.sleep(min(left, 0.5))


def _limiter(per_minute: float | None, share: int) -> Any:
    """A limiter that spreads a worker's share over the minute, rather than spending it at its start; None: no limit."""
    from aiolimiter import AsyncLimiter

    if per_minute is None:
        return None
    a_second = per_minute / share / 60
    return AsyncLimiter(a_second, 1) if a_second >= 1 else AsyncLimiter(1, 1 / a_second)


def _key(name: str, endpoint: Endpoint) -> str | None:
    if endpoint.key_env is None:
        return None
    key = os.environ.get(endpoint.key_env, "").strip()
    if not key:
        raise ValueError(f"endpoint {name}: the environment variable {endpoint.key_env} holds no key")
    return key


def full_text(reply: Reply) -> str:
    """A reply's text; a thinking model's separate reasoning is put before it, in <think> tags."""
    if reply.reasoning and "<think>" not in reply.text:
        return f"<think>{reply.reasoning.strip()}</think>{reply.text.strip()}"
    return reply.text
