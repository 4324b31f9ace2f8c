"""The synthesis against a real HTTP teacher: faults, kills, budgets, refusals. Nothing is paid twice or lost."""

import collections
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_tools.synthesis.__main__ import main

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "config" / "synthesis" / "tiny.yaml"
PATIENT = ["endpoints.offline.timeout_s=60", "endpoints.offline.attempts=30", "endpoints.offline.first_wait_s=0.01"]
IMPATIENT = "endpoints.offline.timeout_s=1.5"  # with a teacher that is FAULTY
FAULTY = {"failing": 0.2, "slow_s": 2.5, "retry_after_s": 0.02}
EXPORTS = ("train.parquet", "val.parquet", "outcomes.jsonl")


def arguments(world: Path, url: str, out: Path, *overrides: str) -> list[str]:
    paths = [f"sources.tiny_world.path={world}/source.parquet", f"filters.tokenizer={world}/tokenizer"]
    own = ["export.val_share=0.2", *PATIENT]
    return [str(RECIPE), "--out", str(out), f"endpoints.offline.base_url={url}", *paths, *own, *overrides]


def outcomes(out: Path) -> dict[str, dict]:
    lines = [json.loads(line) for line in (out / "outcomes.jsonl").read_text().splitlines()]
    found = {line["row"]: line for line in lines}
    assert len(found) == len(lines) == 48  # every row exactly once
    for line in lines:
        assert line["outcome"] == "exported" or line["reason"] or line["outcome"] == "pending"
    return found


def exported(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in EXPORTS}


def journalled(out: Path) -> list[str]:
    path = out / "journal.sqlite"
    if not path.is_file():
        return []
    connection = sqlite3.connect(path)
    try:
        keys = connection.execute("SELECT key, sample FROM calls").fetchall()
    except sqlite3.OperationalError:  # killed before the tables were made
        keys = []
    finally:
        connection.close()
    return [f"{key[:40]}-{sample}" for key, sample in keys]


@pytest.fixture
def undisturbed(synthesis_world, offline_teacher, tmp_path):
    """A run without failing requests."""
    url, server = offline_teacher(failing=0.0)
    assert main(arguments(synthesis_world, url, tmp_path / "undisturbed")) == 0
    assert collections.Counter(key for key, _ in server.log).most_common(1)[0][1] == 1
    return tmp_path / "undisturbed"


def test_a_second_run_asks_nothing_and_exports_the_same(synthesis_world, offline_teacher, tmp_path):
    url, server = offline_teacher(failing=0.0)
    command = arguments(synthesis_world, url, tmp_path / "out")
    assert main(command) == 0
    first, asked = exported(tmp_path / "out"), len(server.log)
    assert {line["outcome"] for line in outcomes(tmp_path / "out").values()} == {"exported", "filtered"}
    assert main(command) == 0
    assert exported(tmp_path / "out") == first and len(server.log) == asked


def test_changed_stages_are_asked_again_and_no_others(synthesis_world, offline_teacher, tmp_path):
    url, _ = offline_teacher(failing=0.0)
    assert main(arguments(synthesis_world, url, tmp_path / "out")) == 0

    def stages_asked(*overrides: str) -> dict[str, int]:
        before = set(journalled(tmp_path / "out"))
        assert main(arguments(synthesis_world, url, tmp_path / "out", *overrides)) == 0
        connection = sqlite3.connect(tmp_path / "out" / "journal.sqlite")
        calls = connection.execute("SELECT key, sample, stage FROM calls").fetchall()
        connection.close()
        return collections.Counter(stage for key, sample, stage in calls if f"{key[:40]}-{sample}" not in before)

    assert set(stages_asked("stages.anchor.sampling.temperature=0.5")) == {"anchor"}
    prompt = tmp_path / "anchor.txt"
    prompt.write_text("Question:\n{question}\nNotes:\n{description}\nSolution:\n{reasoning}")
    assert set(stages_asked(f"stages.anchor.prompt={prompt}")) == {"anchor"}
    # Other descriptions make other questions for the reasoner, and its answers others for the rewriter.
    assert set(stages_asked("stages.reason.sampling.seed=7")) == {"reason", "anchor"}
    assert stages_asked("filters.min_anchors=2") == {}  # filters cost nothing


@pytest.mark.slow
def test_faults_and_ten_kills_leave_the_same_export(synthesis_world, offline_teacher, tmp_path, undisturbed):
    url, server = offline_teacher(**FAULTY, delay_s=0.1)  # about one call between two looks at the journal
    out, log = tmp_path / "killed", (tmp_path / "log").open("w")
    command = [sys.executable, "-m", "data_tools.synthesis", *arguments(synthesis_world, url, out, IMPATIENT, *SLOWLY)]
    rng, finished = random.Random(0), []  # finished: (journalled keys, requests so far) at each kill
    for kill in range(10):
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        goal = len(journalled(out)) + rng.randint(4, 12)
        while len(journalled(out)) < goal and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, f"ended before kill {kill}: {Path(log.name).read_text()[-2000:]}"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.1)  # the teacher may still be answering the dead
        finished.append((set(journalled(out)), len(server.log)))
    done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, timeout=120)
    assert done.returncode == 0, Path(log.name).read_text()[-3000:]
    assert exported(out) == exported(undisturbed)
    assert {line["outcome"] for line in outcomes(out).values()} == {"exported", "filtered"}
    for keys, position in finished:
        assert keys and not keys & {key for key, _ in server.log[position:]}, "a finished call was asked again"
    assert {how for _, how in server.log} == {"ok", "429", "500", "slow", "cut_off", "closed"}


SLOWLY = [f"stages.{stage}.concurrency=4" for stage in ("describe", "reason", "anchor")]


def test_failed_calls_are_accounted_for_and_tried_again(synthesis_world, offline_teacher, tmp_path, undisturbed):
    url, server = offline_teacher(**FAULTY | {"failing": 0.4})
    once = [IMPATIENT, "endpoints.offline.attempts=1", "endpoints.offline.give_up_after=1000"]
    assert main(arguments(synthesis_world, url, tmp_path / "out", *once)) == 0
    failed = [line for line in outcomes(tmp_path / "out").values() if line["outcome"] == "failed"]
    assert failed and all("(1 requests)" in line["reason"] for line in failed)
    paid, position = set(journalled(tmp_path / "out")), len(server.log)
    while any(line["outcome"] == "failed" for line in outcomes(tmp_path / "out").values()):
        assert main(arguments(synthesis_world, url, tmp_path / "out", IMPATIENT)) == 0
    assert not paid & {key for key, _ in server.log[position:]}
    # A reasoning that failed in the first run took the place of none: all calls are there now.
    assert exported(tmp_path / "out") == exported(undisturbed)


@pytest.mark.parametrize(("kind", "limit"), [("requests", 30), ("tokens", 4000)])
def test_a_budget_stops_cleanly_and_goes_on(
    kind, limit, synthesis_world, offline_teacher, tmp_path, undisturbed, capsys
):
    url, server = offline_teacher(failing=0.0)
    command = arguments(synthesis_world, url, tmp_path / "out")
    assert main([*command, f"budget.{kind}={limit}"]) == 3
    assert f"the budget of {limit} {kind} is spent" in capsys.readouterr().err
    assert len(server.log) == len(journalled(tmp_path / "out"))  # what was asked was kept
    assert len(server.log) == limit or kind == "tokens"
    assert sum(line["outcome"] == "pending" for line in outcomes(tmp_path / "out").values()) > 0
    asked = len(server.log)
    assert main([*command, f"budget.{kind}={limit}"]) == 3 and len(server.log) == asked  # over all runs
    assert main(command) == 0
    assert exported(tmp_path / "out") == exported(undisturbed)


def test_ctrl_c_finishes_what_is_under_way(synthesis_world, offline_teacher, tmp_path):
    url, server = offline_teacher(failing=0.0, delay_s=0.2)
    command = [
        sys.executable,
        "-m",
        "data_tools.synthesis",
        *arguments(synthesis_world, url, tmp_path / "out", *SLOWLY),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 60
    while len(journalled(tmp_path / "out")) < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert "interrupted; calls under way were finished" in process.communicate(timeout=60)[1]
    assert process.returncode == 3
    assert len(server.log) == len(journalled(tmp_path / "out"))
    assert any(line["outcome"] == "pending" for line in outcomes(tmp_path / "out").values())


SECRET = "sk-very-secret-0123456789"


def test_a_refused_key_stops_at_once_and_is_told_to_nobody(
    synthesis_world, offline_teacher, tmp_path, capfd, monkeypatch
):
    monkeypatch.setenv("TEST_KEY", SECRET)
    url, _ = offline_teacher(key="another")
    command = arguments(synthesis_world, url, tmp_path / "out", "endpoints.offline.key_env=TEST_KEY")
    assert main(command) == 3
    printed = "".join(capfd.readouterr())
    assert f"endpoint offline at {url} refuses the key in $TEST_KEY (HTTP 401)" in printed
    assert SECRET not in printed
    assert not [path for path in (tmp_path / "out").iterdir() if SECRET.encode() in path.read_bytes()]


def test_a_right_key_is_in_no_file_either(synthesis_world, offline_teacher, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("TEST_KEY", SECRET)
    url, _ = offline_teacher(key=SECRET, **FAULTY)
    assert main(arguments(synthesis_world, url, tmp_path / "out", IMPATIENT, "endpoints.offline.key_env=TEST_KEY")) == 0
    assert SECRET not in "".join(capfd.readouterr())
    assert not [path for path in (tmp_path / "out").iterdir() if SECRET.encode() in path.read_bytes()]


def test_an_endpoint_that_is_down_is_named(synthesis_world, tmp_path, capsys):
    url = "http://127.0.0.1:9/v1"
    quick = [
        "endpoints.offline.attempts=2",
        "endpoints.offline.give_up_after=3",
        "endpoints.offline.longest_wait_s=0.01",
    ]
    assert main(arguments(synthesis_world, url, tmp_path / "out", *quick)) == 3
    assert f"endpoint offline at {url} seems to be down: 3 calls in a row failed" in capsys.readouterr().err


def test_an_unknown_model_stops_at_once(synthesis_world, offline_teacher, tmp_path, capsys):
    url, server = offline_teacher(failing=0.0)
    assert main(arguments(synthesis_world, url, tmp_path / "out", "stages.describe.model=nobody")) == 3
    assert "knows no such model or path: HTTP 404: unknown model" in capsys.readouterr().err
    assert len(server.log) < 48 * 2


def test_missing_images_fail_their_rows_only(synthesis_world, offline_teacher, tmp_path):
    from dataclasses import replace

    from data_tools.formats.sample import SampleWriter, read_samples

    world = tmp_path / "world"
    (world / "tokenizer").mkdir(parents=True)
    (world / "tokenizer" / "tokenizer.json").write_bytes((synthesis_world / "tokenizer/tokenizer.json").read_bytes())
    with SampleWriter(world / "source.parquet") as writer:
        for n, sample in enumerate(read_samples(synthesis_world / "source.parquet")):
            image = {0: ("gone.png",), 1: (b"no image",)}.get(n, sample.images) if sample.images else ()
            writer.add(replace(sample, images=image, gold="a + * b" if n == 2 else sample.gold))
    url, _ = offline_teacher(failing=0.0)
    assert main(arguments(world, url, tmp_path / "out")) == 0
    found = outcomes(tmp_path / "out")
    assert "no such image file" in found["tiny_world/000000"]["reason"]
    assert "no PNG, JPEG, GIF or WebP" in found["tiny_world/000001"]["reason"]
    assert found["tiny_world/000002"]["reason"] == "undecidable"
