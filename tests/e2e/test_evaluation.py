"""The evaluation command with real vLLM and transformers, on an untrained miniature: it repeats, and the two agree."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from avar_rl.runtime.files import read_parquet
from data_tools.prepare import main as prepare

pytestmark = pytest.mark.e2e


def run(module: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)


def test_evaluation_writes_figures_and_responses_and_skips_what_is_done(tiny_world, tmp_path):
    base, data, out = str(tiny_world / "base"), str(tiny_world / "data" / "test.parquet"), tmp_path / "evaluation"
    command = ["base=" + base, "sft=" + base, "--data", data, "--out", str(out), "--limit", "16", "--samples", "2"]
    command += ["--max-new-tokens", "24"]
    first = run("avar_rl.evaluation", *command)
    assert first.returncode == 0, first.stderr
    found = json.loads((out / "base.json").read_text())
    assert found["name"] == "base" and found["n"] == 16 and found["samples"] == 2
    assert found["accuracy"] <= 0.05 and found["format"] == 0.0  # untrained
    assert found["vas"] > 0 and 0 < found["image_mass"] < 1 and 0 < found["system_mass"] < 1
    assert found["truncated"] > 0.5  # it has not learnt to stop
    lines = [json.loads(line) for line in (out / "base.responses.jsonl").read_text().splitlines()]
    assert len(lines) == 16 * 3
    assert len({line["response"] for line in lines}) > 16  # samples differ
    # A second model in the same process gets the same texts: engines leave nothing behind, and seeds hold.
    assert (out / "sft.responses.jsonl").read_text() == (out / "base.responses.jsonl").read_text()

    written = (out / "base.json").stat().st_mtime_ns
    again = run("avar_rl.evaluation", *command)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("evaluated before") == 2 and (out / "base.json").stat().st_mtime_ns == written

    summary = run("avar_rl.evaluation.summary", str(tmp_path))
    assert summary.returncode == 0, summary.stderr
    stages = json.loads((tmp_path / "summary.json").read_text())["stages"]
    assert [stage["name"] for stage in stages] == ["base", "sft"]
    assert "image mass" in summary.stdout


def test_transformers_and_vllm_say_the_same(tiny_world):
    data = str(tiny_world / "data" / "test.parquet")
    result = run("avar_rl.evaluation.same_text", str(tiny_world / "base"), "--data", data, "--limit", "6")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 real differences" in result.stdout


def test_pass_rates_go_on_where_they_stopped_and_choose_rows(tiny_world, tmp_path):
    data, whole = tiny_world / "data" / "rl_train.parquet", tmp_path / "whole" / "rl.parquet"
    # 320 responses: prompts of over 8,192 tokens at once, more than a step of the engine takes
    command = ["difficulty", str(tiny_world / "base"), str(data), "--samples", "8", "--limit", "40"]
    command += ["--max-new-tokens", "12"]
    first = run("avar_rl", *command, "--out", str(whole))
    assert first.returncode == 0, first.stderr
    rows = read_parquet(whole)
    assert [row["extra_info"].pop("pass_samples") for row in rows] == [8] * 40
    assert {row["extra_info"].pop("pass_rate") * 8 for row in rows} <= set(range(9))
    assert rows == read_parquet(data)[:40]

    # What a kill leaves: half of the responses, and one that is torn.
    stopped = tmp_path / "stopped" / "rl.parquet"
    shutil.copytree(whole.parent, stopped.parent)
    stopped.unlink()
    journal = stopped.with_name("rl.responses.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:170]) + lines[170][:9])
    again = run("avar_rl", *command, "--out", str(stopped))
    assert again.returncode == 0 and "320 responses, 170 there" in again.stdout, again.stderr
    assert sorted(journal.read_bytes().splitlines(keepends=True)) == sorted(lines)
    assert stopped.read_bytes() == whole.read_bytes()
    assert prepare([str(whole), str(tmp_path / "chosen"), "--keep-pass", "0-0.5", "--curriculum"]) == 0
    rates = [row["extra_info"]["pass_rate"] for row in read_parquet(tmp_path / "chosen" / "rl_train.parquet")]
    assert rates == sorted(rates, reverse=True) and max(rates) <= 0.5
