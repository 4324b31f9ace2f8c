"""`avar study` on a stand-in recipe of the real recipes/stages.sh: shared stages once, kills, failures."""

import json
import signal
import subprocess
import time

import pytest

from tests.unit.study_recipe import ToyStudy

# Seeds have data of their own; with seed 0 there are cold starts of LR 1 (for a and b) and 2; a and b part at grpo.
ARMS = {"a": {"seeds": [0, 1]}, "b": {"overrides": ["one", "two"]}, "c": {"knobs": {"LR": 2}}}
ONCE = sorted(
    ["data 0", "data 1", "sft 1", "sft 1", "sft 2", "grpo", "grpo", "grpo one two", "grpo"] + ["evaluation"] * 4
)


@pytest.fixture
def toy(tmp_path):
    return ToyStudy(tmp_path, arms=ARMS)


def results(toy: ToyStudy) -> dict[str, dict]:
    folder = toy.folder / "docs" / "study" / "toy" / "runs"
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def until_begun(toy: ToyStudy, process: subprocess.Popen, stage: str) -> None:
    deadline = time.monotonic() + 120
    while not any(line.startswith(stage) for line in toy.ledger("begin")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_every_stage_is_run_once_and_every_run_leaves_its_result(toy):
    status, out, err = toy.run(str(toy.file), "--jobs", "3")
    assert status == 0, out + err
    assert toy.ledger() == ONCE
    found = results(toy)
    assert sorted(found) == ["a-0", "a-1", "b-0", "c-0"]
    b = found["b-0"]
    assert (b["arm"], b["seed"], b["overrides"], b["knobs"]) == ("b", 0, ["one", "two"], {})
    assert b["questions"] == {"id": ["q0", "q1", "q2", "q3"], "kind": ["even", "odd", "even", "odd"]}
    assert b["models"]["sft"]["by_question"] == {"accuracy": [1, 0, 0, 0], "accuracy_sampled": [1, 0, 0, 0]}
    assert b["models"]["grpo"]["by_question"]["accuracy"] == [1, 1, 1, 0]
    assert b["models"]["grpo"]["measures"]["vas"] == 30.0 and "torch" in b["versions"]
    assert [stage["name"] for stage in b["stages"]] == ["data", "sft", "grpo", "evaluation"]
    assert all(stage["seconds"] > 0 and stage["processor_seconds"] > 0 for stage in b["stages"])
    sft, other = (found[run]["models"]["sft"]["checkpoint"] for run in ("a-0", "c-0"))
    assert sft == b["models"]["sft"]["checkpoint"] != other != found["a-1"]["models"]["sft"]["checkpoint"]
    again = toy.run()
    assert again[0] == 0 and "all runs have their results" in again[1] and toy.ledger() == ONCE
    # an arm more: its data and cold start are there
    toy.write(arms={**ARMS, "d": {"overrides": ["three"]}})
    assert toy.run()[0] == 0
    assert toy.ledger() == sorted([*ONCE, "grpo three", "evaluation"])


@pytest.mark.slow
def test_a_sitting_may_be_restricted_to_arms_and_seeds(toy):
    assert toy.run(str(toy.file), "--arms", "c,a", "--seeds", "0")[0] == 0
    assert sorted(results(toy)) == ["a-0", "c-0"]
    assert toy.ledger() == sorted(["data 0", "sft 1", "sft 2", "grpo", "grpo", "evaluation", "evaluation"])
    assert toy.run()[0] == 0 and toy.ledger() == ONCE  # the rest, and none of it again
    status, _, err = toy.run(str(toy.file), "--seeds", "0,7")
    assert status == 2 and "--seeds: the study has no '7'; it has 0, 1" in err


@pytest.mark.slow
def test_it_goes_on_after_a_kill_at_each_stage(tmp_path):
    """kill -9 of `avar study`, at shared stages and others: the same command goes on, no stage is finished twice."""
    toy = ToyStudy(tmp_path, arms={"a": {}, "b": {"overrides": ["one"]}})
    for stage in ("data", "sft", "grpo", "evaluation"):
        hang = toy.mark(f"hang-{stage}")
        process = toy.start(str(toy.file))
        until_begun(toy, process, stage)
        process.kill()
        process.communicate()
        hang.unlink()
    status, out, err = toy.run()
    assert status == 0, out + err
    assert toy.ledger() == sorted(["data 0", "sft 1", "grpo", "grpo one", "evaluation", "evaluation"])
    assert sorted(results(toy)) == ["a-0", "b-0"]


@pytest.mark.slow
def test_a_signal_is_passed_on_and_the_status_is_130(tmp_path):
    toy = ToyStudy(tmp_path, arms={"a": {}})
    hang = toy.mark("hang-sft")
    process = toy.start(str(toy.file))
    until_begun(toy, process, "sft")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130 and "every recipe ends in good order" in out and "the same command goes on" in err
    (log,) = (toy.folder / "outputs/studies/toy/logs").iterdir()
    assert "stage sft stopped with status 130" in log.read_text()
    hang.unlink()
    assert toy.run()[0] == 0 and toy.ledger() == sorted(["data 0", "sft 1", "grpo", "evaluation"])


@pytest.mark.slow
def test_a_measure_that_is_added_later_is_read_without_running_a_stage_again(tmp_path):
    toy = ToyStudy(tmp_path, arms={"a": {}})
    assert toy.run()[0] == 0
    ends, size = toy.ledger(), {"size": {"key": "origin.model.files", "file": "evaluation/{model}.json"}}
    toy.write(arms={"a": {}}, measures={"double": {"key": "vas"}, "other": {"key": "vas", "models": ["base"]}})
    assert toy.run()[0] == 0
    found = results(toy)["a-0"]["models"]["grpo"]["measures"]
    assert found["double"] == 10.0 and found["other"] is None
    toy.write(arms={"a": {}}, measures=size)
    status, _, err = toy.run()
    assert (
        status == 1 and "a with seed 0: no result could be kept: " in err and "origin.model.files is no number" in err
    )
    assert toy.ledger() == ends


@pytest.mark.slow
@pytest.mark.parametrize(("own", "expected"), [("1", 1), ("75", 75)])
def test_a_failure_keeps_only_what_starts_from_it_from_running(tmp_path, own, expected):
    arms = {"a": {}, "b": {"overrides": ["x"]}, "c": {"until": "data", "seeds": [7]}}
    toy = ToyStudy(tmp_path, arms=arms)
    fail = toy.mark("fail-sft", own)
    status, _, err = toy.run()
    assert status == expected
    assert (
        f"up to sft: a, b; seed 0: recipes/toy.sh ended with status {own}: stage sft stopped with status {own}" in err
    )
    assert err.count("not started, as what it starts from failed") == 2
    assert toy.ledger() == ["data 0", "data 7"] and list(results(toy)) == ["c-7"]
    fail.unlink()
    assert toy.run()[0] == 0 and sorted(results(toy)) == ["a-0", "b-0", "c-7"]
    assert toy.ledger().count("data 0") == 1


def test_a_stage_that_writes_into_what_it_shares_is_a_failure(tmp_path):
    toy = ToyStudy(tmp_path, arms={"a": {}, "b": {"overrides": ["spoil"]}})
    status, _, err = toy.run()
    assert status == 1 and "b with seed 0: a stage wrote into" in err and list(results(toy)) == ["a-0"]


def test_two_at_a_time_are_refused(toy):
    toy.mark("hang-data")
    process = toy.start(str(toy.file))
    until_begun(toy, process, "data")
    status, _, err = toy.run()
    assert status == 2 and "another `avar study` is at work in outputs/studies/toy" in err
    process.terminate()
    process.communicate(timeout=100)


def test_a_plan_runs_nothing_and_estimates_from_what_was_run(tmp_path):
    toy = ToyStudy(tmp_path, arms={"a": {}, "b": {"overrides": ["x"]}}, seconds={"grpo": 1800, "sft": 3600})
    status, out, err = toy.run(str(toy.file), "--plan")
    assert status == 0, err
    # data, sft once; grpo, evaluation twice: 3600 + 2 · 1800 s
    assert "6 stages, one after the other 2.0 hours, without data, evaluation" in out
    assert "up to sft: a, b; seed 0" in out and toy.ledger("begin") == [] and not (tmp_path / "outputs").exists()


def test_a_mistake_is_one_sentence_and_2(toy):
    toy.file.write_text("recipe: recipes/toy.sh\narms: {x: {knobs: {LRR: 1}}}\n")
    status, out, err = toy.run()
    assert (status, out) == (2, "") and err.startswith("avar study: ") and "did you mean LR?" in err
    assert toy.run("no.yaml")[::2] == (2, "avar study: no.yaml: No such file or directory\n")
    assert toy.run(str(toy.file), "--jobs", "0")[::2] == (2, "avar study: --jobs 0: at least 1\n")
