"""What a judge behind an OpenAI-compatible endpoint replies, kept in a file by the hash of what it was asked.

A reply that is in the file is not paid for again. A judge that is down is asked no more; what it was to say then fails.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avar_rl.runtime.chat_client import NO_KEY, ask_patiently
from avar_rl.runtime.chat_replies import NoReplyError, SetupError, well_formed

GIVE_UP_AFTER = 20  # calls in a row without a reply


class NotJudgedError(Exception):
    """The judge said nothing that can be used; the message says why."""


@dataclass(frozen=True)
class JudgeAddress:
    """Where a judge is: its name at the endpoint, and how it is asked. The key is in the variable `key_env`, if set.

    Raises:
        ValueError: the address is none, or a number is below 1.
    """

    base_url: str
    model: str
    key_env: str = "OPENAI_API_KEY"
    max_tokens: int = 1024
    concurrency: int = 16
    retries: int = 5
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"the judge's address is {self.base_url!r}; it begins with http:// or https://")
        if min(self.max_tokens, self.concurrency) < 1:
            numbers = f"max_tokens are {self.max_tokens} and its concurrency {self.concurrency}"
            raise ValueError(f"the judge's {numbers}; both must be >= 1")


class JudgeReplies:
    """The replies of one judge. Use it as an asynchronous context; `down` says why it is asked no more, once it is.

    Raises:
        ValueError: another process writes to the file, or a line of it is damaged.
    """

    def __init__(self, endpoint: JudgeAddress, path: Path):
        self.endpoint, self.path, self.asked, self.down = endpoint, path, 0, ""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._known = dict(self._kept())
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise ValueError(f"another process writes to {path}; wait for it") from error
        except ValueError:
            os.close(self._descriptor)
            raise
        self._asking: dict[str, asyncio.Task[str]] = {}
        self._failed_in_a_row = 0

    def _kept(self) -> Iterator[tuple[str, str]]:
        """(key, reply) of all whole lines; an end that is no line, left by a process that died, is cut off."""
        end = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    kept = json.loads(line)
                    yield str(kept["key"]), str(kept["reply"])
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise ValueError(f"{self.path}, line {number}: no reply of a judge; remove the line") from error
                end += len(line)
        os.ftruncate(self._descriptor, end)
        os.lseek(self._descriptor, end, os.SEEK_SET)

    async def __aenter__(self) -> JudgeReplies:
        import openai

        key = os.environ.get(self.endpoint.key_env) or NO_KEY
        options: Any = {"max_retries": 0, "timeout": self.endpoint.timeout_s}
        self._client = openai.AsyncOpenAI(base_url=self.endpoint.base_url, api_key=key, **options)
        self._limit = asyncio.Semaphore(self.endpoint.concurrency)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()
        os.close(self._descriptor)

    async def reply(self, prompt: str) -> str:
        """The judge's reply to a prompt, at temperature 0. NotJudgedError: there is none."""
        body = {
            "model": self.endpoint.model,
            "messages": [{"role": "user", "content": well_formed(prompt)}],
            "max_tokens": self.endpoint.max_tokens,
            "temperature": 0,
        }
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        if key in self._known:
            return self._known[key]
        if key not in self._asking:
            self._asking[key] = asyncio.create_task(self._ask(key, body))
        return await self._asking[key]

    async def _ask(self, key: str, body: dict[str, Any]) -> str:
        async with self._limit:
            if self.down:
                raise NotJudgedError(self.down)
            self.asked += 1
            try:
                reply = await ask_patiently(self._client, self.endpoint.base_url, body, self.endpoint.retries)
            except NoReplyError as error:
                self._count_failure(error)
                raise NotJudgedError(str(error)) from error
        self._failed_in_a_row = 0
        if reply.finish in ("length", "content_filter"):
            raise NotJudgedError(f"its reply ended by {reply.finish}")
        if not reply.text.strip():
            raise NotJudgedError("its reply is empty")
        self._keep(key, reply.text)
        return reply.text

    def _count_failure(self, error: NoReplyError) -> None:
        self._failed_in_a_row += 1
        if isinstance(error, SetupError) or self._failed_in_a_row >= GIVE_UP_AFTER:
            self.down = self.down or str(error)

    def _keep(self, key: str, text: str) -> None:
        line = json.dumps({"key": key, "model": self.endpoint.model, "reply": text}, ensure_ascii=False) + "\n"
        rest = memoryview(line.encode("utf-8", "replace"))
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        os.fsync(self._descriptor)
        self._known[key] = text
