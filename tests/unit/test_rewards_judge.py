"""The judge against a real HTTP server that speaks the chat-completions protocol: retries, limit, what it asks."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from avar_rl.runtime.chat_replies import CallError, SetupError
from rewards.combine import RewardError, RewardSet, parse_terms
from rewards.sample import Sample
from rewards.shipped.judge import judge, parse
from tests.unit.chat_endpoint import Answer, completion


class JudgeEndpoint(ThreadingHTTPServer):
    """Answers each request with the next of `replies`: text, or a failure's status; the last one again and again.

    together: no request is answered before so many of them wait.
    """

    def __init__(self, *replies: str | int, together: int = 1):
        super().__init__(("127.0.0.1", 0), JudgeHandler)
        self.replies, self.requests, self.running, self.most = list(replies), [], 0, 0
        self.lock, self.barrier = threading.Lock(), threading.Barrier(together, timeout=60)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def reply(self, request: dict) -> str | int:
        with self.lock:
            self.requests.append(request)
            self.running += 1
            self.most = max(self.most, self.running)
        self.barrier.wait()
        with self.lock:
            self.running -= 1
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class JudgeHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        assert isinstance(self.server, JudgeEndpoint)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self.server.reply(body | {"key": self.headers["Authorization"], "path": self.path})
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        data = json.dumps(answer if isinstance(reply, str) else {"error": {"message": "busy"}}).encode()
        self.send_response(200 if isinstance(reply, str) else reply)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), "retry-after-ms": "1"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def endpoint():
    """A function that starts an endpoint; all are closed afterwards."""
    started = []

    def start(*replies, **settings) -> JudgeEndpoint:
        started.append(JudgeEndpoint(*replies, **settings))
        return started[-1]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def ask(url: str, **options) -> float | None:
    sample = Sample("How many circles?", "<think>Two.</think><answer>2</answer>", "2", row_id="row 1")
    return asyncio.run(judge(sample, model="some-judge", base_url=url, **options))


def test_it_asks_with_the_question_the_gold_and_the_response(endpoint, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    server = endpoint("0.75")
    assert ask(server.url, api_key_env="JUDGE_KEY") == 0.75
    (request,) = server.requests
    text = request["messages"][0]["content"]
    assert "How many circles?" in text and "Right answer: 2" in text and "<think>Two.</think>" in text
    assert request["path"] == "/v1/chat/completions" and request["model"] == "some-judge"
    assert request["key"] == "Bearer secret"


def test_a_busy_endpoint_is_asked_again(endpoint):
    server = endpoint(503, 429, "1")
    assert ask(server.url, retries=2) == 1.0 and len(server.requests) == 3


def test_an_endpoint_that_stays_busy_fails_with_the_row(endpoint):
    server = endpoint(503)
    lines = {"judge": {"weight": 1, "model": "m", "base_url": server.url, "retries": 1}}
    with pytest.raises(RewardError, match="reward judge failed on row row 1: PassingError: HTTP 503: busy"):
        asyncio.run(RewardSet(parse_terms(lines)).score_text(Sample("q", "r", "g", row_id="row 1")))
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [401, 404])
def test_a_refused_key_or_model_is_an_error_at_once(endpoint, status):
    server = endpoint(status)
    with pytest.raises(SetupError, match=f"HTTP {status}: busy"):
        ask(server.url)
    assert len(server.requests) == 1


ODD = [
    (completion("\ud800"), 1, "gave no number for row row 1, but '\ufffd' (finish_reason stop)"),
    (completion("0.7 or", "content_filter"), 1, "but '0.7 or' (finish_reason content_filter)"),
    (completion(None, refusal="I won't."), 1, '"I won\'t." (finish_reason refusal)'),
    (completion(None), 3, "gave nothing for row row 1: an answer without a text"),
    (Answer({"choices": None}), 3, "broken answer of 17 bytes"),
    (Answer({"error": {"message": "overloaded"}}), 3, "an error with HTTP 200: overloaded"),
    (Answer(b"<html>"), 3, "broken answer of 6 bytes"),
    (Answer({"error": {"message": "too long"}}, 400), 1, "HTTP 400: too long"),
]


@pytest.mark.parametrize(("answer", "requests", "said"), ODD)
def test_an_odd_reply_is_unscorable_and_logged(answer, requests, said, odd_endpoint, caplog, monkeypatch):
    monkeypatch.setattr("avar_rl.runtime.chat_client.FIRST_PAUSE_S", 0.001)
    server = odd_endpoint(answer)
    assert ask(server.url, retries=2) is None
    assert len(server.requests) == requests and said in caplog.text


def test_a_reply_in_parts_and_one_after_odd_ones(odd_endpoint, monkeypatch):
    monkeypatch.setattr("avar_rl.runtime.chat_client.FIRST_PAUSE_S", 0.001)
    server = odd_endpoint(completion(None), Answer({}), completion([{"type": "text", "text": "0.5"}]))
    assert ask(server.url, retries=2) == 0.5 and len(server.requests) == 3


def test_a_spent_quota_is_an_error_at_once(odd_endpoint):
    server = odd_endpoint(Answer({"error": {"message": "pay", "code": "insufficient_quota"}}, 429))
    with pytest.raises(SetupError, match=r"HTTP 429 \(insufficient_quota\): pay"):
        ask(server.url)
    assert len(server.requests) == 1


def test_an_endpoint_that_refuses_everything_is_an_error_in_the_end(odd_endpoint, monkeypatch):
    monkeypatch.setattr("rewards.shipped.judge.GIVE_UP_AFTER", 3)
    refused = Answer({"error": {"message": "unknown parameter max_tokens"}}, 400)
    server = odd_endpoint(refused, refused, completion("1"), refused)
    assert [ask(server.url) for _ in range(5)] == [None, None, 1.0, None, None]  # a reply begins the count anew
    with pytest.raises(CallError, match="unknown parameter max_tokens"):
        ask(server.url)


def test_a_response_that_is_no_unicode_is_judged(odd_endpoint):
    server = odd_endpoint(completion("1"))
    sample = Sample("q", "a \ud800", "g")
    assert asyncio.run(judge(sample, model="m", base_url=server.url)) == 1.0
    assert "Response: a \ufffd\n" in server.requests[0]["messages"][0]["content"]


def test_no_more_than_so_many_requests_at_once(endpoint):
    server = endpoint("1", together=3)

    async def many(concurrency: int) -> list:
        sample = Sample("q", "r", "g")
        calls = (judge(sample, model="m", base_url=server.url, concurrency=concurrency) for _ in range(12))
        return await asyncio.gather(*calls)

    assert asyncio.run(many(3)) == [1.0] * 12
    assert server.most == 3


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("0.5", 0.5), ("Score: 1", 1.0), ("I would say .25", 0.25), ("first 0.2, no: 0.9", 0.9), ("1.0", 1.0)]
    + [("7", None), ("10", None), ("", None), ("no", None), ("0.5.1", None)],
)
def test_reading_the_reply(reply, expected):
    assert parse(reply) == expected
