"""The offline teacher's and its source's commands: their former name, and a user's mistakes."""

import random
import runpy
import sys

import pytest

from data_tools.miniature import source, teacher, teacher_texts
from data_tools.synthesis.calls.journal import Completion
from data_tools.synthesis.inputs.recipe import Filters
from data_tools.synthesis.outcomes.filters import reject_response


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


def test_a_good_long_thought_about_any_kind_of_question_passes_the_filters():
    """Also one about what the text states: to look at the text counts as a look."""
    limits, seen = Filters(min_anchors=1, max_tokens=100), set()
    for index, question in enumerate(source.questions(0, 300)):
        text = teacher_texts.anchored(question, question.gold, random.Random(index), glance_share=0.0)
        done = Completion("key", "row", "anchor", 0, "tiny-anchor", text, "stop", 0, 0, 1, 0.0)
        description = teacher_texts.describe(question.scene) if question.scene else ""
        assert reject_response(done, source.to_sample(index, question), description, limits, tokens=70) is None, text
        seen.add(question.kind)
    assert {"stated", "usual", "unusual", "one_cell", "beside", "after_sum", "arithmetic"} <= seen
