"""All seven benchmarks end to end: small files in their schemas, the untrained miniature, vLLM, transformers, Ray.

The first run is killed in the middle and gone on with; the second has two engines and no
interruption. Both say the same.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avar_rl.evaluation.__main__ import main
from avar_rl.evaluation.benchmarks.asking.records import read_origin, read_records
from avar_rl.evaluation.benchmarks.benchmark import ALL, chosen, copies_in, read
from data_tools.miniature.benchmarks import MIN_ROWS, write_benchmarks

pytestmark = pytest.mark.e2e

SEVEN = chosen([ALL])
TOKENS = 12


def command(world: Path, out: Path, *more: str) -> list[str]:
    asked = ["--benchmarks", ALL, "--benchmark-data", str(world / "copies"), "--limit", str(MIN_ROWS), "--samples", "1"]
    asked += ["--max-new-tokens", str(TOKENS), "--batch", "4", "--out", str(out), *more]
    return [sys.executable, "-m", "avar_rl.evaluation", f"base={world / 'base'}", *asked]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    return kept | {"RAY_worker_niceness": "0"}


def run(words: list[str]) -> subprocess.CompletedProcess:
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done


def lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.responses.jsonl"))


def kill_after(words: list[str], folder: Path, responses: int) -> None:
    """Runs a command and kills it, whatever it is doing, when there are that many responses."""
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 200
    while lines(folder) < responses:
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def world(tiny_world):
    write_benchmarks(tiny_world / "copies", MIN_ROWS)
    return tiny_world


@pytest.fixture(scope="module")
def sizes(world) -> dict[str, int]:
    """The questions of each benchmark here."""
    return {one.name: len(read(one, copies_in(world / "copies", one), MIN_ROWS)) for one in SEVEN}


@pytest.fixture(scope="module")
def resumed(world, tmp_path_factory):
    """The folder of a run that was killed and gone on with, how many responses were there by then, and what it said."""
    out = tmp_path_factory.mktemp("resumed")
    more = ["--intervene", "img=0.15", "--vas", "--system-prompt", "Look first.", "--max-pixels", "7056"]
    kill_after(command(world, out, *more), out / "base", 20)
    with next((out / "base").glob("*.responses.jsonl")).open("ab") as file:
        file.write(b'{"id": "torn')  # a machine that loses power may leave this
    there = lines(out / "base")
    return out, there, run(command(world, out, *more))


def test_a_killed_run_goes_on_to_all_responses_of_all_seven(resumed, sizes):
    out, there, done = resumed
    assert sizes["mmmu_pro"] == 2 * MIN_ROWS and sizes["mathvista"] == MIN_ROWS
    total = 2 * sum(sizes.values())
    assert 20 <= there < total
    assert f"base: {total} responses, {there} there (" in done.stdout
    assert "hallusionbench 8 of 951" in done.stdout
    for variant in ("base", "base.intervened"):
        for name, n in sizes.items():
            records = read_records(out / variant, name)
            assert len({(one["id"], one["sample"]) for one in records}) == len(records) == 2 * n, (variant, name)
            assert {one["sample"] for one in records} == {None, 0}
            assert all(0 < one["tokens"] <= TOKENS for one in records)
            assert any(one["truncated"] for one in records)  # it has not learnt to stop
            origin = read_origin(out / variant, name)
            assert origin["n"] == n and origin["limit"] == MIN_ROWS and origin["prompts"]["name"] == "official"
            assert origin["generation"]["most_pixels"] == 7056
            assert origin["generation"]["system_prompt"] == "Look first."


def test_scores_visual_attention_and_reports_come_of_it(resumed, sizes):
    out, _, done = resumed
    results = json.loads((out / "benchmarks.json").read_text())
    assert results["models"].keys() == {"base", "base.intervened"}
    for variant, figures in results["models"].items():
        assert figures["benchmarks"].keys() == sizes.keys()
        for name, found in figures["benchmarks"].items():
            assert found["n"] == sizes[name] and found["limited"], name
            assert 0 < found["vas"]["image_mass"] < 1, (variant, name)
    masses = [results["models"][v]["benchmarks"]["mmstar"]["vas"]["image_mass"] for v in ("base", "base.intervened")]
    assert masses[1] > masses[0]  # what the intervention is for
    assert (out / "benchmarks.md").is_file() and "base.intervened" in done.stdout and "limited" in done.stdout.lower()


def test_two_engines_say_what_one_says_and_nothing_is_asked_twice(resumed, world, tmp_path, monkeypatch, capfd):
    out, _, _ = resumed
    more = ["--system-prompt", "Look first.", "--max-pixels", "7056"]
    run(command(world, tmp_path, *more, "--replicas", "2"))
    for name in (benchmark.name for benchmark in SEVEN):
        one, two = (
            sorted(read_records(folder / "base", name), key=lambda record: (record["id"], str(record["sample"])))
            for folder in (out, tmp_path)
        )
        assert one == two, name
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "base").glob("*.responses.jsonl")}
    for variable in ("OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING", "TORCHDYNAMO_DISABLE"):
        monkeypatch.setenv(variable, "1")  # main() sets what is not set; monkeypatch puts it back
    assert main(command(world, tmp_path, *more)[3:]) == 0
    assert "all there" in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in written} == written
