"""What a judge behind an OpenAI-compatible endpoint replies, kept in a file by the hash of what it was asked.

A reply that is in the file is not paid for again. A judge that is down is asked no more; what it was to say then fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avar_rl.runtime.chat_client import ask_patiently, endpoint_client
from avar_rl.runtime.chat_replies import NoReplyError, SetupError, well_formed
from avar_rl.runtime.kept_lines import KeptLines

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
        self.endpoint, self.asked, self.down = endpoint, 0, ""
        self._lines = KeptLines(path, lambda line, number: _kept(line, path, number))
        self._known = dict(self._lines.there)
        self._asking: dict[str, asyncio.Task[str]] = {}
        self._failed_in_a_row = 0

    async def __aenter__(self) -> JudgeReplies:
        address = self.endpoint
        self._client = endpoint_client(address.base_url, address.key_env, address.timeout_s)
        self._limit = asyncio.Semaphore(self.endpoint.concurrency)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()
        self._lines.close()

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
        self._lines.append([{"key": key, "model": self.endpoint.model, "reply": text}])
        self._known[key] = text


def _kept(line: bytes, path: Path, number: int) -> tuple[str, str]:
    """The key and the reply in a line of the file at `path`. ValueError: it is damaged."""
    try:
        kept = json.loads(line)
        return str(kept["key"]), str(kept["reply"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: no reply of a judge; remove the line") from error
