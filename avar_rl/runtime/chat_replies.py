"""What an OpenAI-compatible endpoint said: the text of a chat completion, or why there is none. No client, no network.

Trouble is of three kinds. A passing one is worth another try (429, 5xx, a broken answer, an error without a status),
one of the call will come again with the same request (400: too long, refused by a safety filter), and one of the set-up
meets every call (401, 402, 403, 404, a spent quota). An error in the body of HTTP 200 means what its own code says.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

LONGEST_RETRY_AFTER_S = 600.0
_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_UNSAFE = {"content_filter", "content_policy_violation"}
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
}
_WORDS = 300  # characters of an endpoint's words that a message keeps


@dataclass(frozen=True)
class Reply:
    """A chat completion.

    text: what the model says; where it declines in the field for that ("refusal"), those words.
    reasoning: a thinking model's separate reasoning; "" without.
    finish: the API's reason, such as "stop", "length" or "content_filter"; "refusal" where the model declines.
    prompt_tokens, completion_tokens: as the endpoint counts them; 0 where it gives no sensible number.
    """

    text: str
    reasoning: str = ""
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


class NoReplyError(Exception):
    """A request brought no text; the message has the endpoint's words."""


class PassingError(NoReplyError):
    """The same request is worth another try, after `wait_s` seconds where the endpoint said so."""

    def __init__(self, message: str, wait_s: float | None = None):
        super().__init__(message)
        self.wait_s = wait_s


class OddReplyError(PassingError):
    """HTTP 200, but no chat completion with a text; worth another try all the same."""


class CallError(NoReplyError):
    """The same request would fail again; others need not."""


class SetupError(NoReplyError):
    """Every request would fail: the key or the model is refused (`status`), or the account's `quota` is spent."""

    def __init__(self, message: str, status: int | None, quota: bool):
        super().__init__(message)
        self.status, self.quota = status, quota


def well_formed(text: str) -> str:
    """`text` as Unicode that can be written: halves of a pair are joined, and lone surrogates become U+FFFD."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_reply(content: bytes, secret: str = "") -> Reply:
    """The chat completion in the body of an answer with HTTP 200.

    A text may be a list of parts; lone surrogates in it become U+FFFD.

    Args:
        secret: is struck out of messages.

    Raises:
        OddReplyError: it is cut off, or not a chat completion, or one without any text, or a passing error.
        CallError, SetupError: it is an error of these kinds.
    """
    try:
        answer = json.loads(content)
        choice = {} if (said := _error(answer)) else answer["choices"][0]
        if said := said or _error(choice):
            raise _meaning(None, "an error with HTTP 200", said, secret)
        reply = _read(choice, answer.get("usage"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        start = shortened(content[:_WORDS].decode(errors="replace"), secret)
        what = f"broken answer of {len(content)} bytes ({type(error).__name__})"
        raise OddReplyError(f"{what}: {start}" if start else what) from error
    if not (reply.text or reply.reasoning) and reply.finish in ("stop", "tool_calls"):
        if choice["message"].get("content") is None:
            raise OddReplyError(f"an answer without a text (finish_reason {reply.finish})")
    return reply


def _read(choice: Mapping[str, Any], usage: Any) -> Reply:
    message = choice["message"]
    text, thought = _text_of(message.get("content"))
    reasoning = message.get("reasoning_content") or message.get("reasoning") or thought
    finish = choice.get("finish_reason") or "stop"
    if not text and isinstance(refused := message.get("refusal"), str) and refused:
        text, finish = refused, "refusal"
    if not isinstance(reasoning, str) or not isinstance(finish, str):
        raise TypeError("reasoning and finish_reason are texts")
    usage = usage if isinstance(usage, dict) else {}
    tokens = _number(usage.get("prompt_tokens")), _number(usage.get("completion_tokens"))
    return Reply(well_formed(text), well_formed(reasoning), well_formed(finish), *tokens)


def _text_of(content: Any) -> tuple[str, str]:
    """(text, reasoning) of a message's content: a text, nothing, or a list of typed parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        raise TypeError("a content is a text or a list of parts")
    texts, thoughts = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part["type"]
        if kind in ("text", "output_text"):
            texts.append(part["text"])
        elif kind in ("thinking", "reasoning"):
            inner = part.get("thinking") or part.get("text")
            thoughts.append(inner if isinstance(inner, str) else "".join(_text_of(inner)))
        else:
            raise ValueError(f"a part of type {kind!r} is no text")
    return "".join(texts), "".join(thoughts)


def _number(value: Any) -> int:
    """A count of tokens; 0 for what cannot be one."""
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**31 else 0


def trouble(status: int, content: bytes, headers: Mapping[str, str], secret: str = "") -> NoReplyError:
    """What an answer with an HTTP status from 400 up means, in the endpoint's words.

    Args:
        secret: is struck out of the message.
    """
    said = _Said(content[: 8 * _WORDS].decode(errors="replace"))  # what is no JSON, a proxy's page perhaps
    try:
        said = _error(json.loads(content)) or said
    except (ValueError, RecursionError):
        pass
    return _meaning(status, f"HTTP {status}", said, secret, retry_after(headers))


@dataclass(frozen=True)
class _Said:
    """The words of an error, and its code, type and status as texts."""

    words: str
    codes: frozenset[str] = frozenset()


def _error(answer: Any) -> _Said | None:
    """What an answer's body, or one of its choices, says where it is an error."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    error = answer.get("error")
    if not error and "choices" not in answer and "message" in answer and answer.get("object") == "error":
        error = answer
    if not error and not {"choices", "message"} & answer.keys():
        error = answer.get("detail")
    if not error:
        return None
    if not isinstance(error, dict):
        return _Said(str(error))
    codes = frozenset(str(error[key]) for key in ("code", "type", "status") if error.get(key) is not None)
    return _Said(str(error.get("message") or json.dumps(error)), codes)


def _meaning(status: int | None, what: str, said: _Said, secret: str, wait_s: float | None = None) -> NoReplyError:
    """Without a `status` (HTTP 200), the error's own code is one where it looks like one."""
    odd = status is None
    if status is None:
        own = [int(code) for code in said.codes if code.isdecimal() and len(code) == 3 and 400 <= int(code) < 600]
        known = [_STATUS[code] for code in said.codes if code in _STATUS]
        status = next(iter(own + known), None)
    names = ", ".join(sorted(code for code in said.codes if not code.isdecimal()))
    message = f"{what}{f' ({shortened(names, secret)})' if names else ''}: {shortened(said.words, secret)}"
    quota = status == 402 or bool(said.codes & _QUOTA) or (status == 429 and any(q in said.words for q in _QUOTA))
    if said.codes & _UNSAFE:
        return CallError(message)
    if quota or status in (401, 403, 404):
        return SetupError(message, status, quota)
    if status is None or status in (408, 409, 425, 429) or status >= 500:
        return OddReplyError(message) if odd else PassingError(message, wait_s)
    return CallError(message)


def shortened(text: str, secret: str = "") -> str:
    """`text` on one line and made short, without `secret`, which some servers repeat in their errors."""
    return " ".join(well_formed(text.replace(secret, "***") if secret else text).split())[:_WORDS]


def retry_after(headers: Mapping[str, str]) -> float | None:
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
            except (TypeError, ValueError, OverflowError):
                continue
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
    return None


def pause_s(sent: int, error: PassingError, first_s: float, longest_s: float) -> float:
    """Seconds to wait after `sent` requests: as the endpoint asks, else `first_s` doubled each time, with jitter."""
    if error.wait_s is not None:
        return error.wait_s
    doublings = min(sent - 1, 60)  # 2.0**1024 overflows
    return min(first_s * 2**doublings + random.uniform(0, first_s), longest_s)
