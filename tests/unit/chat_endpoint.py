"""A loopback endpoint of chat completions that answers as a test says, byte for byte."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What is sent back. body: bytes as they are, or a value that is sent as JSON."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def completion(content: Any, finish: Any = "stop", **message: Any) -> Answer:
    """A chat completion with this content; 7 tokens of prompt, 5 of completion."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    return Answer({"id": "1", "object": "chat.completion", "created": 0, "choices": [choice], "usage": usage})


class ChatEndpoint(ThreadingHTTPServer):
    """Answers each request with what `reply` makes of its body; `requests` holds the bodies. Close it after use."""

    daemon_threads = True

    def __init__(self, reply: Callable[[dict[str, Any]], Answer]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply, self.requests, self.lock = reply, [], threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @classmethod
    def giving(cls, *answers: Answer) -> "ChatEndpoint":
        """One that gives these answers in turn, the last one again and again."""
        left = list(answers)
        return cls(lambda _: left.pop(0) if len(left) > 1 else left[0])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, ChatEndpoint)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            answer = self.server.reply(body)
        content = answer.content()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass
