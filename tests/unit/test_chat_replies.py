"""Chat completions as endpoints really send them: the text of each, or which kind of trouble it is."""

import json
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avar_rl.runtime.chat_replies import (
    CallError,
    NoReplyError,
    OddReplyError,
    PassingError,
    Reply,
    SetupError,
    pause_s,
    read_reply,
    retry_after,
    trouble,
    well_formed,
)


def body(message: object, finish: object = "stop", **more: object) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], **more}).encode()


def part(kind: str, value: object, key: str = "text") -> dict:
    return {"type": kind, key: value}


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (body({"content": "hi"}, "length", usage={"prompt_tokens": 2}), Reply("hi", "", "length", 2, 0)),
        (body({"content": "hi"}, None, error=None), Reply("hi")),
        (body({"content": ""}), Reply("")),  # said nothing, but answered
        (body({"content": "x", "reasoning_content": "so"}), Reply("x", "so")),
        (body({"content": None, "reasoning": "so far"}, "length"), Reply("", "so far", "length")),
        (body({"content": None, "refusal": "I won't."}), Reply("I won't.", "", "refusal")),
        (body({"content": [part("text", "a"), part("output_text", "b"), "c"]}), Reply("abc")),
        (body({"content": [part("thinking", [part("text", "so")], "thinking"), part("text", "a")]}), Reply("a", "so")),
        (body({"content": [part("reasoning", "so"), part("text", "a")]}), Reply("a", "so")),
        (body({"content": "half"}, "content_filter"), Reply("half", "", "content_filter")),
        (body({"content": None}, "content_filter"), Reply("", "", "content_filter")),
        (body({"content": "a\ud800b \ud83d\ude00"}), Reply("a\ufffdb \U0001f600")),
        (body({"content": "a\0b"}), Reply("a\0b")),
        (body({"content": "n"}, usage={"prompt_tokens": 10**30, "completion_tokens": "7"}), Reply("n")),
        (body({"content": "n"}, usage={"prompt_tokens": -1, "completion_tokens": float("nan")}), Reply("n")),
        (body({"content": "n"}, usage=[1]), Reply("n")),
    ],
)
def test_replies(content, reply):
    assert read_reply(content) == reply


WHOLE = body({"content": "hello"})


@pytest.mark.parametrize(
    "content",
    [WHOLE[:40], b"", b"[]", b"null", b"7", b"<html>busy</html>", b'{"choices": null}', b'{"choices": []}']
    + [b'{"choices": [null]}', b"[" * 100_000, b'{"choices": [{"message": {"content": "\xff"}}]}']
    + [body(None), body({"content": 7}), body({"content": {"text": "a"}}), body({"content": [part("image_url", "x")]})]
    + [body({"content": [["a"]]}), body({"content": [{"text": "a"}]}), body({"content": [part("text", 7)]})]
    + [body({"content": "a"}, ["stop"]), body({"content": "a", "reasoning": ["b"]})],
)
def test_what_is_no_completion_is_asked_again(content):
    with pytest.raises(OddReplyError, match=f"broken answer of {len(content)} bytes"):
        read_reply(content)


def test_an_answer_without_a_text_is_asked_again():
    for message in ({"content": None}, {}):
        with pytest.raises(PassingError, match=r"an answer without a text \(finish_reason stop\)"):
            read_reply(body(message))
    with pytest.raises(PassingError, match="without a text .*tool_calls"):
        read_reply(body({"content": None, "tool_calls": [{}]}, "tool_calls"))


def error(message: str = "words", **more: object) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (error(), PassingError),
        (error(code=None, type=None), PassingError),
        (error(code=429), PassingError),
        (error(code="502"), PassingError),
        (error(type="server_error"), PassingError),
        (error(code=1302), PassingError),  # a number that is no HTTP status
        (b'{"error": "words"}', PassingError),
        (b'{"error": {"weird": ["words"]}}', PassingError),
        (b'{"choices": [{"error": {"message": "words", "code": 503}, "finish_reason": "error"}]}', PassingError),
        (b'{"choices": null, "error": {"message": "words"}}', PassingError),
        (error(code=400), CallError),
        (error(type="invalid_request_error"), CallError),
        (error(code="content_filter"), CallError),
        (b'{"object": "error", "message": "words", "code": 400}', CallError),
        (error(code=401), SetupError),
        (error(code=404), SetupError),
        (error(code=402), SetupError),
        (error(code="insufficient_quota"), SetupError),
    ],
)
def test_an_error_with_http_200_means_what_its_code_says(content, kind):
    with pytest.raises(NoReplyError, match=r"an error with HTTP 200.*words") as raised:
        read_reply(content)
    assert type(raised.value) is (OddReplyError if kind is PassingError else kind)


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (429, error(), PassingError),
        (429, b"", PassingError),
        (503, b"<html>words</html>", PassingError),
        (500, b"[" * 100_000, PassingError),
        (429, error("words " * 100, code="insufficient_quota"), SetupError),  # the code is read, however long the words
        (429, error("proxied: {'code': 'insufficient_quota'} words", code="429"), SetupError),
        (429, b'[{"error": {"code": 429, "message": "words", "status": "RESOURCE_EXHAUSTED"}}]', PassingError),
        (402, error(), SetupError),
        (401, b'{"detail": "words"}', SetupError),
        (403, error(code="content_policy_violation"), CallError),
        (404, error(), SetupError),
        (400, error(code="context_length_exceeded"), CallError),
        (422, b'{"detail": [{"msg": "words"}]}', CallError),
    ],
)
def test_http_statuses(status, content, kind):
    found = trouble(status, content, {"retry-after": "7"})
    assert type(found) is kind and str(found).startswith(f"HTTP {status}")
    assert b"words" not in content or "words" in str(found)
    assert not isinstance(found, PassingError) or found.wait_s == 7.0
    assert not isinstance(found, SetupError) or found.quota == (status in (402, 429))


def test_messages_are_one_short_line_without_the_key():
    said = str(trouble(400, error("your key\nsk-1 is fine \ud800 but " + "long " * 200), {}, "sk-1"))
    assert said.startswith("HTTP 400: your key *** is fine \ufffd but long") and len(said) < 320 and "\n" not in said
    with pytest.raises(PassingError, match=r"broken answer of 9 bytes \(JSONDecodeError\): has \*\*\*"):
        read_reply(b"has sk-1 ", "sk-1")


@given(st.text(st.characters(exclude_categories=())) | st.text(st.sampled_from("a\ud800\ud83d\ude00\udc00")))
def test_well_formed_text_can_be_written_and_is_else_left_alone(text):
    found = well_formed(text)
    assert well_formed(found) == found and found.encode().decode() == found
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert found == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "error", "type", "text", "code", "usage", "finish_reason"]
            )
            | st.sampled_from(["reasoning", "refusal", "detail", "prompt_tokens", "thinking", "object"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON, JSON)
def test_any_json_is_a_reply_or_documented_trouble(anything, message, finish):
    choice = {"message": message, "finish_reason": finish}
    for value in (
        anything,
        {"choices": [choice], "usage": anything},
        {"choices": [{"message": {"content": anything}}]},
    ):
        content = json.dumps(value).encode()
        try:
            read_reply(content).text.encode()
        except NoReplyError as problem:
            str(problem).encode()
        str(trouble(400, content, {})).encode()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "100000"}, 600.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers) == seconds


def test_retry_after_may_be_a_date(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    assert retry_after({"retry-after": formatdate(1_700_000_100, usegmt=True)}) == 100.0


def test_pauses_follow_retry_after_else_they_double():
    def pause(sent: int, asked: float | None) -> float:
        return pause_s(sent, PassingError("busy", asked), 1.0, 5.0)

    assert pause(1, 7.5) == 7.5 and pause(9, 0.0) == 0.0
    assert 1 <= pause(1, None) <= 2 and 2 <= pause(2, None) <= 3  # 2 ** (n - 1), jitter up to 1
    assert pause(9, None) == pause(5000, None) == 5
