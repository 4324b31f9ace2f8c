"""The offline teacher's and its source's commands: their former name, and a user's mistakes."""

import runpy
import sys

import pytest

from data_tools.miniature import source, teacher


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (teacher.main, ["--rows", "0"], "rows of sft_train must be at least 1, not 0"),
        (teacher.main, ["--bad", "3"], "bad: Input should be less than or equal to 1, not 3.0"),
        (teacher.main, ["--slow-s", "-1"], "slow_s: Input should be greater than or equal to 0, not -1.0"),
        (teacher.main, ["--port", "70000"], "--port must be between 0 and 65535, not 70000"),
        (source.main, ["--out", "x.parquet", "--rows", "0"], "rows of sft_train must be at least 1, not 0"),
        (source.main, ["--out", "/dev/null/x.parquet", "--rows", "1"], "/dev/null"),
    ],
)
def test_a_user_s_mistake_is_one_sentence_and_status_2(command, arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        command(arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and said in printed and not list(tmp_path.iterdir())


def test_the_teacher_s_former_command_still_starts_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tiny_teacher", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("data_tools.synthesis.tiny_teacher", run_name="__main__")
    assert ended.value.code == 0 and "--retry-after-s" in capsys.readouterr().out
