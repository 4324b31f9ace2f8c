"""A teacher whose endpoint answers oddly, over HTTP: each call is kept, tried again, failed, or stops the run."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data_tools.synthesis.__main__ import main
from data_tools.synthesis.calls.journal import Completion, Failure
from data_tools.synthesis.calls.request import Request
from data_tools.synthesis.calls.teachers import StoppedError, Teacher
from data_tools.synthesis.inputs.recipe import Endpoint, Stage
from tests.unit.chat_endpoint import Answer, ChatEndpoint, completion

ROOT = Path(__file__).parents[2]
SECRET = "sk-very-secret"
REQUEST = Request("k" * 64, "s/1", "describe", 0, (("user", "What is there?"),), ())


def ask(server: ChatEndpoint, monkeypatch, **settings) -> Completion | Failure:
    monkeypatch.setenv("TEACHER_KEY", SECRET)
    quick = {"attempts": 3, "first_wait_s": 0.001, "key_env": "TEACHER_KEY"} | settings

    async def charge() -> None:
        pass

    async def one() -> Completion | Failure:
        async with Teacher("e", Endpoint(server.url, **quick), charge, threading.Event()) as teacher:
            return await teacher.ask(REQUEST, Stage("e", "model", "p.txt"))

    return asyncio.run(one())


GOOD = completion("A circle.")


def error(status: int = 200, **error: object) -> Answer:
    return Answer({"error": {"message": f"no luck with {SECRET}", **error}}, status)


@pytest.mark.parametrize(
    ("answer", "text", "finish"),
    [
        (completion("A \ud800 circle."), "A \ufffd circle.", "stop"),
        (completion([{"type": "text", "text": "A "}, {"type": "text", "text": "circle."}]), "A circle.", "stop"),
        (completion(None, reasoning_content="It is"), "<think>It is</think>", "stop"),
        (completion("A cir", "content_filter"), "A cir", "content_filter"),
        (completion(None, "content_filter"), "", "content_filter"),
        (completion(None, "stop", refusal="I won't."), "I won't.", "refusal"),
    ],
)
def test_what_was_paid_for_is_kept(answer, text, finish, odd_endpoint, monkeypatch):
    server = odd_endpoint(answer)
    done = ask(server, monkeypatch)
    assert isinstance(done, Completion) and (done.text, done.finish) == (text, finish)
    assert (done.prompt_tokens, done.completion_tokens, done.requests) == (7, 5, 1) and len(server.requests) == 1


AGAIN = [
    (completion(None), "an answer without a text (finish_reason stop)"),
    (Answer({"choices": None}), "broken answer of 17 bytes (TypeError): {"),
    (Answer({"choices": []}), "broken answer of 15 bytes (IndexError): {"),
    (Answer(b"[" * 100_000), "broken answer of 100000 bytes (RecursionError): ["),
    (error(), "an error with HTTP 200: no luck with ***"),
    (error(code=502, type="bad_gateway"), "an error with HTTP 200 (bad_gateway): no luck with ***"),
    (error(429, code="rate_limit_exceeded"), "HTTP 429 (rate_limit_exceeded): no luck with ***"),
    (Answer(b"<html>Bad gateway</html>", 502), "HTTP 502: <html>Bad gateway</html>"),
]


@pytest.mark.parametrize(("answer", "said"), AGAIN)
def test_passing_trouble_is_tried_again_and_else_fails_the_call(answer, said, odd_endpoint, monkeypatch):
    server = odd_endpoint(answer, answer, GOOD)
    done = ask(server, monkeypatch)
    assert isinstance(done, Completion) and (done.text, done.requests) == ("A circle.", 3)
    failed = ask(odd_endpoint(answer), monkeypatch)
    assert isinstance(failed, Failure) and failed.requests == 3
    assert failed.error.startswith(said) and failed.error.endswith("(3 requests)")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error(400, code="content_filter"), "HTTP 400 (content_filter): no luck with ***"),
        (error(400, code="context_length_exceeded"), "HTTP 400 (context_length_exceeded): no luck with ***"),
        (error(200, type="invalid_request_error"), "an error with HTTP 200 (invalid_request_error): no luck with ***"),
    ],
)
def test_a_refused_request_fails_its_call_at_once(answer, said, odd_endpoint, monkeypatch):
    server = odd_endpoint(answer)
    done = ask(server, monkeypatch)
    assert isinstance(done, Failure) and done.error == said and len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error(429, code="insufficient_quota"), "the account's quota is spent: HTTP 429 (insufficient_quota): no luck"),
        (error(429, note="x" * 400, type="insufficient_quota"), "the account's quota is spent: HTTP 429 (insuff"),
        (error(200, code="insufficient_quota"), "the account's quota is spent: an error with HTTP 200 (insuff"),
        (error(402), "the account's quota is spent: HTTP 402: no luck with ***"),
        (error(401), "refuses the key in $TEACHER_KEY (HTTP 401)"),
        (error(404), "knows no such model or path: HTTP 404: no luck with ***"),
    ],
)
def test_trouble_of_the_set_up_stops_the_run_at_once(answer, said, odd_endpoint, monkeypatch):
    server = odd_endpoint(answer)
    with pytest.raises(StoppedError) as stopped:
        ask(server, monkeypatch)
    assert said in str(stopped.value) and str(stopped.value).startswith(f"endpoint e at {server.url}")
    assert SECRET not in str(stopped.value) and len(server.requests) == 1


def arguments(world: Path, url: str, out: Path) -> list[str]:
    recipe = ROOT / "recipes" / "config" / "synthesis" / "tiny.yaml"
    paths = [f"sources.tiny_world.path={world}/source.parquet", f"filters.tokenizer={world}/tokenizer"]
    settings = [f"endpoints.offline.base_url={url}", "endpoints.offline.timeout_s=60", *paths]  # a busy machine is slow
    return [str(recipe), "--out", str(out), *settings]


def test_lone_surrogates_end_no_run_and_are_paid_once(odd_endpoint, synthesis_world, tmp_path):
    server = odd_endpoint(completion("<think>Look at the image: \ud800.</think><answer>1\udc00</answer>"))
    command = [sys.executable, "-m", "data_tools.synthesis", *arguments(synthesis_world, server.url, tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 48 and {line["outcome"] for line in lines} == {"filtered"}
    connection = sqlite3.connect(tmp_path / "journal.sqlite")
    texts = connection.execute("SELECT text FROM calls").fetchall()
    connection.close()
    assert len(texts) == len(server.requests)
    assert set(texts) == {("<think>Look at the image: \ufffd.</think><answer>1\ufffd</answer>",)}


def test_sigterm_ends_a_run_whose_endpoint_sends_surrogates(synthesis_world, tmp_path):
    arrived, released = threading.Semaphore(0), threading.Event()

    def reply(_) -> Answer:
        arrived.release()
        released.wait(60)
        return completion("\ud800")

    server = ChatEndpoint(reply)
    command = [sys.executable, "-m", "data_tools.synthesis", *arguments(synthesis_world, server.url, tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert arrived.acquire(timeout=60)  # calls are under way
        process.send_signal(signal.SIGTERM)
        released.set()
        assert "interrupted; calls under way were finished" in process.communicate(timeout=60)[1]
        assert process.returncode == 3
    finally:
        released.set()
        process.kill()
        process.wait()
        server.close()


def test_a_content_filter_s_text_is_kept_and_the_row_says_so(odd_endpoint, synthesis_world, tmp_path):
    server = odd_endpoint(completion("A cir", "content_filter"))
    assert main(arguments(synthesis_world, server.url, tmp_path)) == 0
    asked = len(server.requests)
    lines = [json.loads(line) for line in (tmp_path / "outcomes.jsonl").read_text().splitlines()]
    assert {(line["outcome"], line["reason"]) for line in lines} == {("filtered", "content_filter")}
    assert lines[0]["candidates"][0]["detail"] == "finish reason content_filter after 'A cir'"
    assert main(arguments(synthesis_world, server.url, tmp_path)) == 0 and len(server.requests) == asked
