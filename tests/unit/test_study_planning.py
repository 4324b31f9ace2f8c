"""Studies: their file, and which stages are shared, by hand-worked plans."""

import json
import os
import sys
from pathlib import Path

import pytest

from avar_rl.runtime.recipe_plan import RecipeStage
from avar_rl.study import forking
from avar_rl.study.planning import ArmRun, arm_runs, digests, jobs_of
from avar_rl.study.study_file import Arm, Study, load_study, recipe_knobs
from tests.unit.study_recipe import ROOT, ToyStudy


def arm_run(arm: str, *commands: str, seed: int = 0) -> ArmRun:
    """Stages a, b, c … with these commands."""
    stages = tuple(RecipeStage(name, (command,)) for name, command in zip("abcdef", commands, strict=False))
    return ArmRun(arm, seed, stages, digests(stages))


def planned(*runs: ArmRun) -> list[tuple[str, str, str]]:
    """Of each job: the folder that it starts from, its own, both without digest, and its own stages."""
    study = Study(recipe="x", arms={run.arm: Arm() for run in runs}, out="out")
    jobs = jobs_of(study, runs)
    by_out = {job.out: job for job in jobs}
    assert all(job.start is None or jobs.index(by_out[job.start]) < jobs.index(job) for job in jobs)

    def short(path: Path | None) -> str:
        return "" if path is None else path.name.rpartition("-")[0]

    return [(short(job.start), short(job.out), "".join(stage.name for stage in job.own)) for job in jobs]


def test_runs_without_anything_in_common_share_nothing():
    assert planned(arm_run("x", "1", "2"), arm_run("y", "3", "2")) == [("", "x-0", "ab"), ("", "y-0", "ab")]


def test_what_two_have_in_common_is_run_once_up_to_where_they_part():
    assert planned(arm_run("x", "1", "2", "3"), arm_run("y", "1", "2", "4")) == [
        ("", "b", "ab"), ("b", "x-0", "c"), ("b", "y-0", "c"),
    ]  # fmt: skip


def test_a_stage_behind_one_that_differs_is_not_shared_though_its_command_is_the_same():
    assert planned(arm_run("x", "1", "2", "3"), arm_run("y", "1", "9", "3")) == [
        ("", "a", "a"), ("a", "x-0", "bc"), ("a", "y-0", "bc"),
    ]  # fmt: skip


def test_a_tree_of_three_partings():
    """x and y share a and b, z only a, and w is x's seed 1, which shares a with all: data that no seed changes."""
    runs = [arm_run("x", "1", "2", "3"), arm_run("y", "1", "2", "4"), arm_run("z", "1", "5", "3")]
    assert planned(*runs, arm_run("x", "1", "6", "3", seed=1)) == [
        ("", "a", "a"), ("a", "b", "b"), ("b", "x-0", "c"), ("b", "y-0", "c"), ("a", "z-0", "bc"), ("a", "x-1", "bc"),
    ]  # fmt: skip


def test_an_arm_that_ends_where_another_goes_on():
    assert planned(arm_run("x", "1", "2"), arm_run("y", "1", "2", "3")) == [
        ("", "b", "ab"), ("b", "x-0", ""), ("b", "y-0", "c"),
    ]  # fmt: skip


def test_the_recipe_itself_plans_the_runs(tmp_path, monkeypatch):
    """With the real recipes/stages.sh. Folders and interpreter are no part of a plan; {seed} and {out} are filled."""
    toy = ToyStudy(tmp_path, seeds=[3, 5], knobs={"SFT_ARGS": ["a=1"]}, overrides=["common"], arms={
        "one": {"knobs": {"SFT_ARGS": ["b={seed}"], "LR": 2}},
        "two": {"until": "sft", "seeds": [3]},
        "three": {"overrides": ["dir={out}/x"]},
    })  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNTIL", "nothing")  # a study sets it itself
    one, two, three, *_ = runs = arm_runs(load_study(toy.file))
    assert [run.name for run in runs] == ["one-3", "two-3", "three-3", "one-5", "three-5"]
    commands = {stage.name: stage.words for stage in one.stages}
    assert list(commands) == ["data", "sft", "grpo", "evaluation"]
    assert commands["sft"][0] == "python" and commands["sft"][-3:] == ("2", "a=1", "b=3")
    assert commands["grpo"][-1] == "common"
    assert [stage.name for stage in two.stages] == ["data", "sft"] and two.stages[1].words[-2:] == ("1", "a=1")
    assert three.stages[2].words[-1] == "dir=/run-of-a-study/x" and three.digests[1] == two.digests[1]
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"arms": {}}, "arms"),
        ({"arms": {"x": {"knob": {}}}}, "unknown key arms.x.knob (did you mean knobs?)"),
        ({"arms": {"x": {}}, "sedes": [1]}, "unknown key sedes (did you mean seeds?)"),
        ({"arms": {"a b": {}}}, "arms.a b"),
        ({"arms": {"x": {"knobs": {"SFT_ARG": "a"}}}}, "recipes/toy.sh reads no SFT_ARG; did you mean SFT_ARGS?"),
        ({"arms": {"x": {"knobs": {"SEED": 1}}}}, "arms.x.knobs.SEED: a study sets SEED by itself"),
        ({"arms": {"x": {"knobs": {"LR": True}}}}, "arms.x.knobs.LR"),
        ({"arms": {"x": {"knobs": {"SFT_ARGS": "b"}}}, "knobs": {"SFT_ARGS": ["a"]}}, "make both lists"),
        ({"arms": {"x": {}}, "seeds": [1, 1]}, "a seed is listed twice"),
        ({"arms": {"x": {}}, "seeds": []}, "seeds"),
        ({"arms": {"x": {}}, "recipe": "recipes/no.sh"}, "recipes/no.sh: no such script"),
        ({"arms": {"x": {}}, "columns": ["vsa"]}, "columns: no measure 'vsa'; did you mean vas?"),
        (
            {"arms": {"x": {}}, "comparisons": {"c": {"arm": "x/grpo", "against": "y/grpo"}}},
            "comparisons.c: no arm 'y'; known: x",
        ),
        ({"arms": {"x": {}}, "comparisons": {"c": {"arm": "x", "against": "x/sft"}}}, "'x' is not ARM/MODEL"),
        ({"arms": {"x": {}}, "comparisons": {"c": {"arm": "x/a", "against": "x/a"}}}, "compared with itself"),
        ({"arms": {"x": {}}, "comparisons": {"c": {"arm": "x/a", "against": "x/b", "relative": True}}}, "give least"),
        (
            {
                "arms": {"x": {"seeds": [1]}, "y": {"seeds": [2]}},
                "comparisons": {"c": {"arm": "x/grpo", "against": "y/grpo"}},
            },
            "x and y have no seed in common",
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(tmp_path, monkeypatch, settings, expected):
    toy = ToyStudy(tmp_path, **settings)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as found:
        load_study(toy.file)
    assert expected in str(found.value) and str(found.value).startswith(f"{toy.file}: ")


def test_a_key_that_is_there_twice_is_refused(tmp_path, monkeypatch):
    toy = ToyStudy(tmp_path, arms={"x": {}})
    toy.file.write_text("recipe: recipes/toy.sh\narms:\n  x: {}\n  x: {until: sft}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="found duplicate key x"):
        load_study(toy.file)


def test_arms_and_seeds_that_change_nothing_are_refused(tmp_path, monkeypatch):
    toy = ToyStudy(tmp_path, arms={"x": {}, "y": {"knobs": {"LR": 1}}})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="arms x and y run the same commands"):
        arm_runs(load_study(toy.file))
    recipe = tmp_path / "recipes" / "toy.sh"
    recipe.write_text(recipe.read_text().replace('"$SEED"', ""))
    toy.write(arms={"x": {}}, seeds=[0, 1])
    with pytest.raises(ValueError, match="runs the same with SEED=0 and 1"):
        arm_runs(load_study(toy.file))
    toy.write(arms={"x": {"until": "sftt"}})
    with pytest.raises(ValueError, match="arm x: .*UNTIL=sftt: this recipe has no stage of that name"):
        arm_runs(load_study(toy.file))


def test_a_knob_from_the_environment_is_refused(tmp_path, monkeypatch):
    """It would train something else than the file says."""
    toy = ToyStudy(tmp_path, arms={"x": {}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LR", "7")
    with pytest.raises(ValueError, match="LR=7 is set in the environment, which recipes/toy.sh would read: unset it"):
        arm_runs(load_study(toy.file))


def test_the_knobs_of_the_shipped_recipes():
    tiny, large = recipe_knobs(ROOT / "recipes/avar_tiny.sh"), recipe_knobs(ROOT / "recipes/avar_qwen3b_1gpu.sh")
    assert {"SFT_ARGS", "GRPO_STEPS", "DATA_ARGS", "STAGE_LIMIT"} <= tiny and "OUT" not in tiny and "SEED" not in tiny
    assert {"LORA_RANK", "SFT_DATA", "MAX_PROMPT", "GRPO"} <= large


@pytest.mark.parametrize("file", sorted((ROOT / "recipes" / "studies").glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_studies_are_planned_by_their_recipes(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("AVAR_VENV", os.environ.get("AVAR_VENV", str(Path(sys.executable).parents[1])))
    study = load_study(file)
    runs = arm_runs(study)
    jobs = jobs_of(study, runs)
    assert sum(len(job.own) for job in jobs) == len({digest for run in runs for digest in run.digests})


def test_a_fork_links_what_is_large_copies_what_is_small_and_speaks_of_its_own_folder(tmp_path):
    start, out = tmp_path / "shared", tmp_path / "run"
    (start / "stages").mkdir(parents=True)
    (start / "stages" / "sft").write_text(f"12\npython train {start}/data\n")
    os.utime(start / "stages" / "sft", ns=(5, 7))
    (start / "data").mkdir()
    (start / "data" / "large").write_bytes(bytes(forking.LINKED_FROM))
    (start / "data" / "small").write_text("small")
    (start / "link").symlink_to("data")
    (start / ".lock").write_text("process 1")
    forking.fork(start, out)
    assert (out / "stages" / "sft").read_text() == f"12\npython train {out}/data\n"
    assert (out / "stages" / "sft").stat().st_mtime_ns == 7
    assert (out / "data" / "large").stat().st_ino == (start / "data" / "large").stat().st_ino
    assert (out / "data" / "small").stat().st_ino != (start / "data" / "small").stat().st_ino
    assert (out / "data" / "small").stat().st_mtime_ns == (start / "data" / "small").stat().st_mtime_ns
    assert os.readlink(out / "link") == "data" and not (out / ".lock").exists()
    assert forking.written_to(out) == []
    (out / "data" / "small").write_text("other")  # its own
    (out / "data" / "large").unlink()  # replaced: its own, too
    (out / "data" / "large").write_text("other")
    forking.fork(start, out)  # is there already
    assert (out / "data" / "small").read_text() == "other" and forking.written_to(out) == []


def test_a_write_into_what_is_shared_is_noticed(tmp_path):
    start, out = tmp_path / "shared", tmp_path / "run"
    (start / "stages").mkdir(parents=True)
    (start / "large").write_bytes(bytes(forking.LINKED_FROM))
    forking.fork(start, out)
    with (out / "large").open("r+b") as file:
        file.write(b"x")
    assert forking.written_to(out) == [str(start / "large")]
    assert json.loads((out / ".start.json").read_text())["start"] == str(start)
