"""What the synthesis costs beside its teachers: `python -m benchmarks.synthesis [--rows 10000] [--out DIR]`.

Against the offline teacher on the loopback, which answers after 50 ms: throughput at 64 calls in flight as a share of
the ideal (64 / 50 ms) and of what the bare `openai` client reaches in the same minute, processor time and overhead
per call, and peak memory. The teacher is a process of its own; both share the machine, so say what else runs on it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openai

    from data_tools.synthesis.inputs.recipe import Recipe

DELAY_S, IN_FLIGHT = 0.05, 64
RECIPE = Path(__file__).parents[1] / "recipes" / "config" / "synthesis" / "tiny.yaml"


def start_teacher(folder: Path, rows: int) -> tuple[subprocess.Popen, str]:
    """The offline teacher's process, once it listens, and its base URL."""
    url_file = folder / "url"
    command = [sys.executable, "-m", "data_tools.miniature.teacher", "--rows", str(rows), "--bad", "0"]
    command += ["--failing", "0", "--delay-s", str(DELAY_S), "--url-file", str(url_file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not url_file.is_file():
        if process.poll() is not None:
            raise SystemExit("the teacher did not start")
        time.sleep(0.1)
    return process, url_file.read_text()


def recipe(folder: Path, url: str, in_flight: int, rows: int) -> Recipe:
    """The tiny recipe with one call per stage and row; the stages share `in_flight` places."""
    from data_tools.synthesis.inputs.recipe import load_recipe

    third = in_flight // 3
    places = {"describe": third, "reason": in_flight - 2 * third, "anchor": third}  # 6 % of the rows have no image
    overrides = [f"stages.{name}.concurrency={max(1, count)}" for name, count in places.items()]
    overrides += [f"endpoints.offline.base_url={url}", "endpoints.offline.timeout_s=120", "stages.reason.samples=1"]
    overrides += [f"sources.tiny_world.path={folder}/source.parquet", f"sources.tiny_world.rows={rows}"]
    return load_recipe(RECIPE, overrides)


def synthesise(chosen: Recipe, out: Path) -> tuple[int, float, float]:
    """(calls, wall seconds, processor seconds) of the run, without the export."""
    from data_tools.synthesis.calls.journal import Journal
    from data_tools.synthesis.inputs.selection import SelectedRows
    from data_tools.synthesis.outcomes.stages import Tracer
    from data_tools.synthesis.running.run import run_here

    tracer, rows = Tracer(chosen, len), SelectedRows(chosen)  # lengths in characters: tokenizing is not measured here
    wall, processor = time.perf_counter(), time.process_time()
    run_here(chosen, rows, tracer, out / "journal.sqlite")
    spent = time.perf_counter() - wall, time.process_time() - processor
    journal = Journal(out / "journal.sqlite")
    calls = sum(usage.calls for usage in journal.usage().values())
    journal.close()
    return calls, *spent


def export(chosen: Recipe, out: Path) -> float:
    """Seconds that the export takes."""
    from data_tools.synthesis.calls.journal import Journal
    from data_tools.synthesis.inputs.selection import SelectedRows
    from data_tools.synthesis.outcomes.export import Exporter
    from data_tools.synthesis.outcomes.stages import Tracer

    journal = Journal(out / "journal.sqlite")
    started = time.perf_counter()
    Exporter(chosen, journal, Tracer(chosen, len)).export(SelectedRows(chosen), out)
    journal.close()
    return time.perf_counter() - started


async def bare_client(url: str, calls: int, in_flight: int) -> tuple[float, float]:
    """(wall, processor) seconds of `calls` equal calls through the client alone, `in_flight` at once."""
    import openai

    content = "What is 1 + 1? " * 40
    turns = iter(range(calls))
    async with openai.AsyncOpenAI(base_url=url, api_key="-", http_client=openai.DefaultAioHttpClient()) as client:

        async def ask() -> None:
            for _ in turns:
                await client.chat.completions.create(
                    model="tiny-reason", messages=[{"role": "user", "content": content}], temperature=0
                )

        await ask_one(client, content)
        wall, processor = time.perf_counter(), time.process_time()
        await asyncio.gather(*(ask() for _ in range(in_flight)))
        return time.perf_counter() - wall, time.process_time() - processor


async def ask_one(client: openai.AsyncOpenAI, content: str) -> None:
    """Makes the first call, which imports and connects."""
    await client.chat.completions.create(model="tiny-reason", messages=[{"role": "user", "content": content}])


def peak_mb() -> float:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def processor_s(pid: int) -> float:
    """Processor seconds of a process so far, of the user and of the system."""
    import psutil

    return sum(psutil.Process(pid).cpu_times()[:2])


def measure(folder: Path, rows: int) -> None:
    """Takes and prints all figures; its files are left in `folder`."""
    import uvloop

    from data_tools.miniature import source as tiny_world

    tiny_world.main(["--out", str(folder / "source.parquet"), "--rows", str(rows)])
    process, url = start_teacher(folder, rows)
    try:
        ideal = IN_FLIGHT / DELAY_S
        wall, processor = uvloop.run(bare_client(url, 3000, IN_FLIGHT))
        bare = 3000 / wall
        print(
            f"bare client: {bare:.0f} calls/s, {bare / ideal:.0%} of ideal, {processor / 3:.2f} ms processor per call"
        )
        few = min(rows, 100)
        alone = uvloop.run(bare_client(url, few, 1))[0] / few - DELAY_S
        _, wall, _ = synthesise(recipe(folder, url, 3, few), folder / "few")
        overhead = wall / few - DELAY_S  # every row passes the reasoner, one after the other
        print(
            f"one call at a time: {overhead * 1e3:.1f} ms per call beyond the teacher's {DELAY_S * 1e3:.0f} ms,"
            f" {alone * 1e3:.1f} of them in the bare client"
        )
        before, teacher = peak_mb(), processor_s(process.pid)
        chosen = recipe(folder, url, IN_FLIGHT, rows)
        calls, wall, processor = synthesise(chosen, folder / "all")
        teacher = processor_s(process.pid) - teacher
        rate = calls / wall
        print(f"{rows} rows, {calls} calls: {rate:.0f} calls/s, {rate / ideal:.0%} of ideal, {rate / bare:.0%} of bare")
        print(f"processor: {processor / calls * 1e3:.2f} ms per call; the teacher's: {teacher / calls * 1e3:.2f} ms")
        print(f"peak memory: {peak_mb():.0f} MB, before: {before:.0f}; load average {os.getloadavg()[0]:.1f}")
        print(f"export: {export(chosen, folder / 'all'):.1f} s; peak memory: {peak_mb():.0f} MB")
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="folder for the files (default: a temporary one)")
    arguments = parser.parse_args()
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        measure(arguments.out, arguments.rows)
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), arguments.rows)


if __name__ == "__main__":
    main()
