"""Fixtures shared by all tests: nothing is downloaded, everything is made here from seeds."""

import functools
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # pytest-xdist sets both in its processes; output is to be that of a pipe
os.environ.pop("LINES", None)

import pytest
import torch

if not torch.cuda.is_available():
    # Triton makes its own library interpretable, or not, when it is imported. Not for the processes that tests start.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        import triton.language  # noqa: F401


THE_RECIPE = "e2e/test_recipes.py"  # nearly half of what starts trainers, Ray or vLLM


@functools.cache
def starts_processes(file: Path) -> bool:
    return "mark.e2e" in file.read_text()


def pytest_collection_modifyitems(items):
    """What starts trainers, Ray or vLLM comes first, since it takes the longest; ordinary files fill up the end."""
    items.sort(key=lambda item: (not starts_processes(item.path), not item.path.match(THE_RECIPE)))


def pytest_xdist_make_scheduler(config, log):
    """Where tests run side by side: a file's tests in one process, and at most two that start trainers, Ray or vLLM.

    By file, since marks of pytest-xdist 3.8 (`--dist loadgroup`) are lost under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # the order is that of `pytest_collection_modifyitems`

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if not starts_processes(config.rootpath / file):
                return file
            return "the recipe" if Path(file).match(THE_RECIPE) else "beside it"

    return Scheduler(config, log)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory):
    """Folder with `data/*.parquet` of a small miniature world and `base/`, an untrained miniature Qwen2.5-VL."""
    from data_tools.miniature import data as tiny
    from data_tools.miniature import model as tiny_model

    folder = tmp_path_factory.mktemp("tiny_world")
    sizes = ["--pretrain-rows", "200", "--sft-rows", "400", "--rl-rows", "64"]
    tiny.main(["--out", str(folder / "data"), "--seed", "0", *sizes])
    tiny_model.main(["--out", str(folder / "base"), "--data", str(folder / "data"), "--seed", "0"])
    return folder


@pytest.fixture(scope="session")
def synthesis_world(tmp_path_factory):
    """Folder with `source.parquet`, 48 questions of the miniature world, and `tokenizer/tokenizer.json`."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from data_tools.miniature import source as tiny_world

    folder = tmp_path_factory.mktemp("synthesis")
    tiny_world.main(["--out", str(folder / "source.parquet"), "--rows", "48"])
    words = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    (folder / "tokenizer").mkdir()
    words.save(str(folder / "tokenizer" / "tokenizer.json"))
    return folder


@pytest.fixture
def offline_teacher():
    """`start(**manners)` runs the project's loopback teacher for `synthesis_world`; gives (base URL, its server)."""
    import asyncio
    import threading

    from aiohttp import web

    from data_tools.miniature.source import questions
    from data_tools.miniature.teacher import Manners, OfflineTeacher, Server

    loop, stops = asyncio.new_event_loop(), []
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def start(key: str | None = None, **manners):
        async def serve():
            server = Server(OfflineTeacher(questions(0, 48), Manners(**manners)), key)
            runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            stops.append(runner.cleanup)
            return f"http://127.0.0.1:{runner.addresses[0][1]}/v1", server

        return asyncio.run_coroutine_threadsafe(serve(), loop).result(30)

    yield start
    for stop in stops:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
