"""The rollout record: what is written is read back; mistakes are named; what of it goes into the page."""

import json
import subprocess
import sys

import pytest

from avar_rl.rollouts import __main__ as command
from avar_rl.rollouts.page import Selection, _chosen_steps, build
from avar_rl.rollouts.record import MEASURES, read_step, step_files, store_image, write_step
from tests.unit.rollout_samples import HOSTILE, picture, rollout, write_record


def test_a_step_is_read_back_as_it_was_written(tmp_path):
    written = [rollout("I see red"), rollout(HOSTILE, group="b", raw={"accuracy": None}, weighted={"accuracy": 0.0})]
    path = write_step(tmp_path, 12, written)
    assert path.name == "step_000012.jsonl" and read_step(path) == written
    assert len(path.read_bytes().splitlines()) == 2  # U+2028 breaks no line


def test_a_repeated_step_replaces_what_an_interrupted_run_left(tmp_path):
    write_step(tmp_path, 3, [rollout("old"), rollout("old")])
    assert [r.response for r in read_step(write_step(tmp_path, 3, [rollout("new")]))] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["step_000003.jsonl"]


def test_an_image_is_kept_once(tmp_path):
    names = {store_image(tmp_path, picture("red")), store_image(tmp_path, picture("red"))}
    other = store_image(tmp_path, picture("blue"))
    assert len(names) == 1 and other not in names
    assert sorted(f"images/{path.name}" for path in (tmp_path / "images").iterdir()) == sorted({*names, other})


def test_masses_of_another_length_than_the_tokens_are_refused():
    with pytest.raises(ValueError, match="row tiny-0: 1 values of image_mass for 3 tokens"):
        rollout("I see red", image_mass=(0.5,))


@pytest.mark.parametrize("name", MEASURES)
def test_what_is_measured_by_token_is_optional_read_back_and_of_its_length(name, tmp_path):
    (found,) = read_step(write_step(tmp_path, 1, [rollout("I see red", **{name: (0.5, -1.25, 0)})]))
    assert found.measured[name] == (0.5, -1.25, 0)
    with pytest.raises(ValueError, match=f"row tiny-0: 2 values of {name} for 3 tokens"):
        rollout("I see red", **{name: (0.5, 1)})
    with pytest.raises(ValueError, match="a score or a value of a token is no number"):
        rollout("I see red", **{name: (0.5, "1", 2)})


def test_a_record_of_before_is_readable(tmp_path):
    path = write_step(tmp_path, 1, [rollout("I see red")])
    line = json.loads(path.read_text())
    newer = ("region_mass", "dependence", "weight", "entropy", "closed", "masked", "error")
    path.write_text(json.dumps({name: value for name, value in line.items() if name not in newer}) + "\n")
    assert read_step(path) == [rollout("I see red")]


def test_a_reward_that_is_not_a_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_step(tmp_path, 1, [rollout("x", total=float("nan"))])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{not json", "line 2: not JSON"),
        ("[1, 2]", "line 2: not a response"),
        ('{"step": 1}', "line 2: not a response"),
        ({"colour": "red"}, "line 2: not a response"),
        ({"tokens": 3}, "line 2: 'int' object is not iterable"),
        ({"image_mass": [0.5]}, "line 2: row tiny-0: 1 values of image_mass for 3 tokens"),
    ],
)
def test_a_broken_line_is_named_with_its_place(tmp_path, line, expected):
    path = write_step(tmp_path, 1, [rollout("I see red")])
    if isinstance(line, dict):
        line = json.dumps(json.loads(path.read_text()) | line)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match="step_000001.jsonl, " + expected):
        read_step(path)


def test_steps_are_in_order_and_a_runs_own_directory_will_do(tmp_path):
    for step in (10, 9, 1000000):
        write_step(tmp_path / "rollouts", step, [rollout("x")])
    assert list(step_files(tmp_path)) == [9, 10, 1000000] == list(step_files(tmp_path / "rollouts"))


def test_steps_of_the_page_are_spread_evenly_with_first_and_last():
    files = dict.fromkeys(range(1, 101))
    assert _chosen_steps(files, Selection(max_steps=4)) == [1, 34, 67, 100]
    assert _chosen_steps(files, Selection(max_steps=1)) == [100]
    assert _chosen_steps({5: None, 9: None}, Selection()) == [5, 9]
    assert _chosen_steps(files, Selection(steps=(9, 3, 9))) == [3, 9]


def test_the_command_writes_the_page_and_says_where(tmp_path, capsys):
    write_record(tmp_path / "run" / "rollouts")
    assert command.main([str(tmp_path / "run")]) == 0
    assert f"{tmp_path}/run/rollouts.html" in capsys.readouterr().out
    assert (tmp_path / "run" / "rollouts.html").read_text() == build(tmp_path / "run", Selection(), f"{tmp_path}/run")


def test_mistakes_are_one_sentence(tmp_path, capsys):
    assert command.main([str(tmp_path / "nowhere")]) == 2
    assert "no rollout record" in capsys.readouterr().err
    write_record(tmp_path)
    assert command.main([str(tmp_path), "--steps", "1-3"]) == 2
    assert "step 3 is not in the record, which holds 1 to 2" in capsys.readouterr().err
    next((tmp_path / "images").iterdir()).write_bytes(b"no image")
    assert command.main([str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    for wrong in (["--steps", "1,x"], ["--groups", "0"]):
        with pytest.raises(SystemExit) as stop:
            command.main([str(tmp_path), *wrong])
        assert stop.value.code == 2


def test_help_imports_neither_template_engine_nor_torch():
    code = "import sys, avar_rl.rollouts.__main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'jinja2', 'torch', 'ray', 'verl', 'PIL'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
