"""`python -m rewards.try`: real rows, no training."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avar_rl.runtime.files import read_parquet

attempt = importlib.import_module("rewards.try")  # `try` is a keyword

OWN = """
from rewards.plugin import reward
from rewards.sample import Sample

@reward
def own(sample: Sample, *, at_least: int = 1) -> float:
    assert sample.question and sample.row["extra_info"]["question"] == sample.question, "no question"
    return float(len(sample.image_sizes) >= at_least)
"""


@pytest.fixture
def files(tiny_world, tmp_path):
    """Rows of the miniature world, a right and a wrong response to each of the first two, and a reward file."""
    data = tiny_world / "data" / "rl_train.parquet"
    lines = []
    for row in read_parquet(data)[:2]:
        for answer in (row["reward_model"]["ground_truth"], "wrong [bold]"):
            text = f"<think>I look.</think><answer>{answer}</answer>"
            lines.append({"id": row["extra_info"]["id"], "response": text, "tokens": 9})
    responses, own = tmp_path / "responses.jsonl", tmp_path / "own.py"
    write(responses, lines)
    own.write_text(OWN)
    return {"data": str(data), "responses": str(responses), "own": str(own), "lines": lines}


def write(path, lines: list[dict]) -> None:
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))


def run(files: dict, *arguments: str) -> int:
    return attempt.main([*arguments, "--data", files["data"], "--responses", files["responses"]])


def test_values_of_several_rewards_in_their_order(files):
    tried = attempt.run(["accuracy", f"own={files['own']}"], ["own.at_least=0"], files["data"], files["responses"])
    assert [one.raw for one in tried] == [{"accuracy": right, "own": 1.0} for right in (1.0, 0.0, 1.0, 0.0)]
    assert tried[0].row_id == files["lines"][0]["id"] and not any(one.error for one in tried)


def test_a_response_may_say_what_the_chat_template_has_opened(files):
    lines = [line | {"response": line["response"].removeprefix("<think>")} for line in files["lines"]]
    write(files["responses"], [lines[0], lines[1] | {"prefill": "<think>\n"}])
    tried = attempt.run(["format"], [], files["data"], files["responses"])
    assert [one.raw["format"] for one in tried] == [0.0, 1.0]
    write(files["responses"], [lines[0] | {"prefill": 7}])
    with pytest.raises(ValueError, match="responses.jsonl, line 1: `prefill` must be a text, not 7"):
        attempt.run(["format"], [], files["data"], files["responses"])


def test_a_file_alone_stands_for_all_that_it_declares(files, tmp_path):
    both = tmp_path / "both.py"
    both.write_text(f"{OWN}\n@reward(name='second')\nasync def other(sample: Sample) -> float:\n    return 0.5\n")
    arguments = (["own.at_least=0"], files["data"], files["responses"], 1)
    assert attempt.run(["format", str(both)], *arguments)[0].raw == {"format": 1.0, "own": 1.0, "second": 0.5}
    assert attempt.run([f"own={both}"], *arguments)[0].raw == {"own": 1.0}  # one of several, by name


def test_the_limit_is_on_responses_that_are_scored_and_rows_on_those_listed(files, capsys):
    write(files["responses"], files["lines"] * 5)  # 20
    assert run(files, "--reward", "format", "--limit", "9", "--rows", "5") == 0
    out = capsys.readouterr().out
    assert "… 4 more …" in out and "5 of 9 responses" in out
    assert run(files, "--reward", "format", "--rows", "0") == 0
    assert capsys.readouterr().out.count("rl_train-0") == 20
    for wrong in (["--limit", "0"], ["--rows", "-1"], ["--rows", "few"]):
        with pytest.raises(SystemExit) as stopped:
            run(files, "--reward", "format", *wrong)
        assert stopped.value.code == 2 and f"{wrong[1]!r} is no whole number >= " in capsys.readouterr().err


def test_the_text_of_an_option_is_right(files):
    row = next(row for row in read_parquet(files["data"]) if row["extra_info"]["options"])
    texts = row["extra_info"]["options"]
    write(
        files["responses"], [{"id": row["extra_info"]["id"], "response": f"<answer>{text}</answer>"} for text in texts]
    )
    tried = attempt.run(["accuracy"], [], files["data"], files["responses"])
    assert [one.raw["accuracy"] for one in tried] == [
        float(letter == row["reward_model"]["ground_truth"]) for letter in "ABCD"
    ]


def test_the_table_shows_rows_and_a_summary(files, capsys):
    assert run(files, "--reward", "accuracy", "length", "--option", "length.buffer=4", "length.max_tokens=10") == 0
    out = capsys.readouterr().out
    assert "accuracy" in out and "n/a" in out and "-0.75" in out  # 9 tokens: 3 of 4 into the ramp
    assert "[bold]" in out  # as the response has it


def test_attention_rewards_need_masses(files, capsys):
    assert run(files, "--reward", "visual") == 2
    assert "line 1 has no image_mass and system_mass (tokens x layers), which visual needs" in capsys.readouterr().err
    masses = [[[0.2, 0.4]] * 2, [[0.1, 0.1]] * 2]  # two tokens, two layers
    system = {"system_mass": [[0.2, 0.4]] * 2}
    lines = [line | system | {"image_mass": masses[i % 2]} for i, line in enumerate(files["lines"])]
    write(files["responses"], lines)
    tried = attempt.run(["visual"], ["visual.mode=rank"], files["data"], files["responses"])
    expected = [rank if read_images(files, one.row_id) else None for one, rank in zip(tried, [1, 0, 1, 0], strict=True)]
    assert [one.raw["visual"] for one in tried] == expected


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ([[0.1], [0.1, 0.2]], "must be lists of tokens x layers"),
        ([0.1, 0.2], r"must both be tokens x layers; they are [2] and [1, 2]"),
        ([[0.1]], r"they are [1, 1] and [1, 2]"),
    ],
)
def test_masses_of_another_shape_are_named(image, expected, files, capsys):
    write(files["responses"], [files["lines"][0] | {"image_mass": image, "system_mass": [[0.1, 0.1]]}])
    assert run(files, "--reward", "visual") == 2
    err = capsys.readouterr().err
    assert "line 1: image_mass and system_mass" in err and expected in err


def read_images(files: dict, row_id: str) -> int:
    return next(len(row["images"]) for row in read_parquet(files["data"]) if row["extra_info"]["id"] == row_id)


def test_a_reward_that_fails_is_shown_with_its_traceback(files, capsys):
    Path(files["own"]).write_text(OWN.replace("return float", "return 1 / 0 + float"))
    assert run(files, "--reward", f"own={files['own']}") == 1
    captured = capsys.readouterr()
    assert captured.out.count("failed") == 4  # once a response
    err = captured.err
    assert "4 of 4 responses failed" in err and "ZeroDivisionError" in err and "reward own failed on row" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--reward", "acuracy"], "unknown reward acuracy; did you mean accuracy"),
        (["--reward", "accuracy", "--option", "accuracy"], "--option accuracy: write NAME.KEY=VALUE"),
        (["--reward", "format", "--option", "format.x=1"], "unknown key avar.rewards.format.x; format ("),
        (["--reward", "length", "--option", "length.buffer=[1"], "--option length.buffer=[1: the value is not YAML"),
        (["--reward", "format", "format"], "--reward names format twice"),
        (["--reward", "nowhere/my.py"], "reward file nowhere/my.py: no such file"),
    ],
)
def test_mistakes_are_one_sentence(arguments, expected, files, capsys):
    assert run(files, *arguments) == 2
    err = capsys.readouterr().err
    assert expected in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no responses"),
        ("{", "line 1 is not JSON"),
        ("\n[1]", "line 2 is no object"),
        ('{"id": "no"}', "line 1: id 'no' is no row of"),
        ('{"id": "rl_train-00000"}', "line 1 has no text `response`"),
        (
            '{"id": "rl_train-00000", "response": "6", "tokens": "9"}',
            "line 1: `tokens` must be a whole number, not '9'",
        ),
    ],
)
def test_faulty_responses_are_named(text, expected, files, capsys):
    Path(files["responses"]).write_text(text)
    assert run(files, "--reward", "accuracy") == 2
    assert expected in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-m", "rewards.try", "--help"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "usage: avar try-reward" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert not imported & {"torch", "pyarrow", "pydantic", "rich"}


def test_rows_whose_columns_are_no_mappings_are_named(files, tmp_path, capsys):
    for number, column in enumerate(("extra_info", "reward_model")):
        row = {"prompt": "?", "extra_info": {"id": "1"}, "reward_model": {"ground_truth": "2"}} | {column: "text"}
        path = tmp_path / f"rows_{number}.parquet"
        pq.write_table(pa.Table.from_pylist([row]), path)
        assert run(files | {"data": str(path)}, "--reward", "accuracy") == 2
        assert f"{path}, row 1 is no RL row" in capsys.readouterr().err
