"""One OpenAI-compatible endpoint: rate limits, back-off, and what its errors mean.

Errors are of three kinds: passing ones are tried again (429, 5xx, time-outs, broken answers), those of one request fail
its call (400: too long, refused by a safety filter), and those of the set-up stop the run (401, 403, 404, spent quota).
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from typing import Any

from data_tools.synthesis.calls.journal import Completion, Failure
from data_tools.synthesis.calls.request import Request
from data_tools.synthesis.inputs.recipe import Endpoint, Stage

LONGEST_RETRY_AFTER_S = 600.0


class StoppedError(Exception):
    """Ends the run: nothing new is asked. The message says why."""


class PassingError(Exception):
    """A request failed that is worth another try, after `wait_s` seconds where the endpoint said so."""

    def __init__(self, message: str, wait_s: float | None = None):
        super().__init__(message)
        self.wait_s = wait_s


class CallError(Exception):
    """A request failed and will not succeed when it is made again."""


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
                text, finish, prompt, completion = await self._send(request, settings)
                break
            except CallError as error:
                return Failure(*about, str(error), sent)
            except PassingError as error:
                if sent >= self.endpoint.attempts:
                    self._count_failure(error)
                    return Failure(*about, f"{error} ({sent} requests)", sent)
                await self._sleep(self.wait_s(sent, error))
        self._failed_in_a_row = 0
        seconds = round(time.monotonic() - started, 4)
        return Completion(*about, settings.model, text, finish, prompt, completion, sent, seconds)

    def _count_failure(self, error: PassingError) -> None:
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self.endpoint.give_up_after:
            raise StoppedError(
                f"{self._where()} seems to be down: {self._failed_in_a_row} calls in a row failed, the last: {error}"
            ) from error

    async def _send(self, request: Request, settings: Stage) -> tuple[str, str, int, int]:
        import httpx2
        import openai

        body = {"model": settings.model, "messages": request.messages(), **settings.sampling}
        headers = {"Idempotency-Key": f"{request.key[:40]}-{request.sample}"}
        try:
            # The client's own chat.completions.create walks through every message: two thirds more processor time.
            answer = await self._client.post(
                self._url, body=body, cast_to=httpx2.Response, options={"headers": headers}
            )
            found = parse_answer(answer.content)
        except openai.APIStatusError as error:
            raise self._meaning(error) from error
        except openai.APITimeoutError as error:
            raise PassingError(f"no answer in {self.endpoint.timeout_s:g} s") from error
        except (openai.APIConnectionError, openai.APIResponseValidationError) as error:
            raise PassingError(self._clean(f"{error} {error.__cause__ or ''}")) from error
        self._owed += found[2] + found[3]
        return found

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

    def _meaning(self, error: Any) -> Exception:
        status, said = error.status_code, self._clean(str(error))
        if status in (401, 403):
            variable = self.endpoint.key_env
            key = f"the key in ${variable}" if variable else "a request without a key (key_env)"
            return StoppedError(f"{self._where()} refuses {key} (HTTP {status})")
        if status == 404:
            return StoppedError(f"{self._where()} knows no such model or path (HTTP 404): {said}")
        if status == 402 or (status == 429 and "insufficient_quota" in said):
            return StoppedError(f"{self._where()}: the account's quota is spent: {said}")
        if status in (408, 409, 425, 429) or status >= 500:
            return PassingError(said, retry_after(error.response.headers))
        return CallError(said)

    def _where(self) -> str:
        return f"endpoint {self.name} at {self.endpoint.base_url}"

    def _clean(self, text: str) -> str:
        """`text` made short, and without the key, which some servers repeat in their errors."""
        return " ".join((text.replace(self._key, "***") if self._key else text).split())[:300]

    def wait_s(self, sent: int, error: PassingError) -> float:
        """Seconds to wait after `sent` requests: what the answer asks for, else exponential with jitter."""
        if error.wait_s is not None:
            return error.wait_s
        first, longest = self.endpoint.first_wait_s, self.endpoint.longest_wait_s
        doublings = min(sent - 1, 60)  # 2.0**1024 overflows
        return min(first * 2**doublings + random.uniform(0, first), longest)

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


def parse_answer(content: bytes) -> tuple[str, str, int, int]:
    """(text, finish reason, prompt tokens, completion tokens) of a chat completion.

    A thinking model's separate reasoning is put before its text, in <think> tags.

    Raises:
        PassingError: cut off, or not a chat completion.
    """
    try:
        answer = json.loads(content)
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        message = choice["message"]
        text = message.get("content") or ""
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        if reasoning and "<think>" not in text:
            text = f"<think>{reasoning.strip()}</think>{text.strip()}"
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        return text, str(choice.get("finish_reason") or "stop"), *tokens
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise PassingError(f"broken answer of {len(content)} bytes ({type(error).__name__})") from error


def retry_after(headers: Any) -> float | None:
    """Seconds that an answer's headers ask to wait, as milliseconds, seconds or a date; None where they do not say."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (TypeError, ValueError):
                continue
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
    return None
