"""An OpenAI-compatible teacher for the miniature world, on the loopback: `python -m data_tools.miniature.teacher`.

It knows the scenes of a seeded world. Its models tiny-describe, tiny-reason and tiny-anchor play the three teachers:
the first knows an image by its hash, the others read the scene back from the description. A share of what they say is
wrong, leaking or malformed, and a share of the requests gets 429, 500, silence, half an answer or a closed connection.
What is said depends on the request alone; what fails, on the request and on how often it was made.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.files import write_whole
from avar_rl.runtime.settings import NotNegative, Share, parse, settings
from data_tools.miniature import teacher_texts as tiny_texts
from data_tools.miniature.questions import WorldQuestion
from data_tools.miniature.scenes import Scene, render
from data_tools.miniature.source import questions

if TYPE_CHECKING:
    from aiohttp import web

MISHAPS = ("429", "500", "slow", "cut_off", "closed")
_SUM = re.compile(r"What is \d+ [-+*] \d+\?")


@settings
class Manners:
    """How well the teacher answers, and how fast."""

    bad: Share = 0.12  # of the texts of each stage
    failing: Share = 0.05  # of the requests
    delay_s: NotNegative = 0.0  # before each answer
    slow_s: NotNegative = 5.0  # before an answer that fails by being late
    retry_after_s: NotNegative = 0.1  # what a 429 asks for
    glance: Share = 0.4  # of the anchored texts where there is a short one


class OfflineTeacher:
    """What the teacher says of the questions that it knows; `say` is a pure function of the request."""

    def __init__(self, known: Sequence[WorldQuestion], manners: Manners):
        self.manners = manners
        self._by_scene: dict[Scene, WorldQuestion] = {q.scene: q for q in known if q.scene}
        self._by_text = {q.text: q for q in known if not q.scene}
        self._by_image = {hashlib.sha256(render(scene)).digest(): scene for scene in self._by_scene}

    def say(self, model: str, text: str, images: Sequence[bytes], rng: random.Random) -> tuple[str, str]:
        """(text, finish reason) of `model` for a prompt and its images.

        Raises:
            KeyError: there is no such model, or the image is of another world.
        """
        bad = rng.random() < self.manners.bad
        if model == "tiny-describe":
            return self._describe(self._by_image[hashlib.sha256(images[0]).digest()], bad, rng)
        question = self._question(text)
        if model == "tiny-reason":
            return self._reason(question, bad, rng)
        if model == "tiny-anchor":
            return self._anchor(question, text, bad, rng), "stop"
        raise KeyError(model)

    def _question(self, text: str) -> WorldQuestion | None:
        """What a text teacher can tell from a description; None where that fits no scene of the world."""
        scene = tiny_texts.read_description(text)
        if scene:
            return self._by_scene.get(scene)
        found = _SUM.search(text)
        return self._by_text.get(found[0]) if found else None

    def _describe(self, scene: Scene, bad: bool, rng: random.Random) -> tuple[str, str]:
        fault = rng.choice(("wrong", "refusal", "cut_off")) if bad else None
        if fault == "refusal":
            return "I'm sorry, I cannot view the image.", "stop"
        text = tiny_texts.describe(tiny_texts.wrong_scene(scene, rng) if fault == "wrong" else scene)
        return (text[: len(text) // 2], "length") if fault == "cut_off" else (text, "stop")

    def _reason(self, question: WorldQuestion | None, bad: bool, rng: random.Random) -> tuple[str, str]:
        if question is None:
            return tiny_texts.respond("This does not settle it. I guess.", "0"), "stop"
        fault = rng.choice(("wrong", "format", "cut_off", "refusal")) if bad else None
        if fault == "refusal":
            return "I cannot answer this.", "stop"
        wrong = fault == "wrong"
        text = tiny_texts.reasoning(question, tiny_texts.wrong_answer(question, rng) if wrong else question.gold)
        if fault == "format":
            text = text.replace("<answer>", "").replace("</answer>", "")
        return (text[: len(text) // 2], "length") if fault == "cut_off" else (text, "stop")

    def _anchor(self, question: WorldQuestion | None, text: str, bad: bool, rng: random.Random) -> str:
        from rewards.shipped.accuracy import extract_answer  # imports the grader: a second that --help need not wait

        answer = extract_answer(text) or ""
        if question is None:
            return tiny_texts.respond("Let me look at the image again.", answer)
        if bad:
            return tiny_texts.spoiled(rng.choice(tiny_texts.FAULTS), question, answer, rng)
        return tiny_texts.anchored(question, answer, rng, self.manners.glance)


class Server:
    """HTTP around an OfflineTeacher; with a `key`, requests that show another one get 401.

    `log` holds (idempotency key, how it is answered) of every request, in the order in which they came.
    """

    def __init__(self, teacher: OfflineTeacher, key: str | None = None):
        self.teacher, self.manners, self.key = teacher, teacher.manners, key
        self.log: list[tuple[str, str]] = []
        self._tries: Counter[bytes] = Counter()

    def application(self) -> web.Application:
        """The application of aiohttp that answers /v1/chat/completions, and shows `log` under /log."""
        from aiohttp import web

        application = web.Application(client_max_size=64 << 20)
        application.router.add_post("/v1/chat/completions", self._complete)
        application.router.add_get("/log", self._show_log)
        return application

    async def _show_log(self, request: web.Request) -> web.Response:
        from aiohttp import web

        return web.json_response(self.log)

    async def _complete(self, request: web.Request) -> web.Response:
        from aiohttp import web

        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            said = f"Incorrect API key provided: {request.headers.get('Authorization')}"
            return web.json_response({"error": {"message": said}}, status=401)
        body = await request.read()
        digest = hashlib.sha256(body).digest()
        mishap = self._mishap(digest)
        self.log.append((request.headers.get("Idempotency-Key", ""), mishap or "ok"))
        await asyncio.sleep(self.manners.slow_s if mishap == "slow" else self.manners.delay_s)
        if mishap == "429":
            headers = {"Retry-After": str(self.manners.retry_after_s)}
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers=headers)
        if mishap == "500":
            return web.json_response({"error": {"message": "something broke"}}, status=500)
        if mishap == "closed":
            if request.transport:  # None where the client has gone already
                request.transport.close()
            return web.Response()
        try:
            answer = json.dumps(self._answer(json.loads(body), digest)).encode()
        except KeyError as error:
            return web.json_response({"error": {"message": f"unknown model or image: {error}"}}, status=404)
        return web.Response(
            body=answer[: len(answer) // 2] if mishap == "cut_off" else answer, content_type="application/json"
        )

    def _mishap(self, digest: bytes) -> str | None:
        self._tries[digest] += 1
        rng = random.Random(digest + self._tries[digest].to_bytes(4))
        return rng.choice(MISHAPS) if rng.random() < self.manners.failing else None

    def _answer(self, body: dict[str, Any], digest: bytes) -> dict[str, Any]:
        content = body["messages"][-1]["content"]
        parts: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        images = [base64.b64decode(url.partition(";base64,")[2]) for url in urls]
        said, finish = self.teacher.say(body["model"], text, images, random.Random(digest))
        tokens = {"prompt_tokens": len(text) // 4, "completion_tokens": len(said) // 4}
        message = {"role": "assistant", "content": said}
        return {
            "id": digest.hex()[:16],
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {**tokens, "total_tokens": sum(tokens.values())},
        }


async def _serve(server: Server, port: int, url_file: Path | None) -> None:
    from aiohttp import web

    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=1024)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    print(url, flush=True)
    if url_file:
        write_whole(url_file, url)
    await asyncio.Event().wait()


def main(argv: Sequence[str] | None = None) -> None:
    """Serves until it is interrupted; a user's mistake ends with status 2."""
    defaults = Manners()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the world (default 0)")
    parser.add_argument("--rows", type=int, default=4000, help="questions of the world (default 4000)")
    parser.add_argument("--port", type=int, default=0, help="0, the default: any free port")
    parser.add_argument("--url-file", type=Path, help="the base URL is written here once the teacher listens")
    parser.add_argument("--key", help="refuse requests with another key")
    for name in ("bad", "failing", "delay_s", "slow_s", "retry_after_s", "glance"):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(
            flag, type=float, default=getattr(defaults, name), help=f"default {getattr(defaults, name)}"
        )
    options = vars(parser.parse_args(argv))
    seed, rows, port, url_file, key = (options.pop(name) for name in ("seed", "rows", "port", "url_file", "key"))
    import uvloop

    try:
        if not 0 <= port < 2**16:
            raise ValueError(f"--port must be between 0 and {2**16 - 1}, not {port}")
        manners = parse(Manners, options, "")
        uvloop.run(_serve(Server(OfflineTeacher(questions(seed, rows), manners), key), port, url_file))
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
