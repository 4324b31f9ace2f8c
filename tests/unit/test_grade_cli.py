"""python -m rewards.grade: one pair, a file of pairs, and mistakes in one sentence."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from rewards.grade import main, read_policy
from rewards.grading import DEFAULT


def test_one_pair_is_explained(capsys):
    assert main(["12 m", "12 kg"]) == 0
    out = capsys.readouterr().out
    assert "not equivalent (tier: structure)" in out and "m is another unit than kg" in out
    assert main([r"The answer is \frac{2}{4}.", "1/2", "--form", "response"]) == 0
    assert capsys.readouterr().out.startswith("equivalent")


def test_a_file_keeps_its_rows_and_gets_verdicts(tmp_path, capsys):
    rows = [
        {"pred": "1/2", "gold": "0.5", "id": 7, "expected": True},
        {"pred": r"so \boxed{3}", "gold": "4", "form": "response", "expected": False},
        {"pred": None, "gold": "4", "expected": False},
        {"pred": 4, "gold": "4", "expected": True},
        {"pred": "4", "gold": "", "expected": None},
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    assert main(["--input", str(source), "--output", str(target)]) == 0
    graded = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["equivalent"] for row in graded] == [True, False, False, True, None]
    assert [row["tier"] for row in graded] == ["number", "number", "empty", "text", "gold"]
    assert graded[0]["id"] == 7 and all(row["seconds"] >= 0 for row in graded)
    assert "empty" in graded[4]["error"]
    out = capsys.readouterr().out
    assert "5 pairs: 2 equivalent, 2 not, 0 undecided, 1 with a gold that cannot be read" in out
    assert "5 of 5 right, 0 false positives among 2 negatives" in out


def test_policies_are_given_by_name(capsys):
    assert main(["10%", "0.1", "--policy", "percent_as_fraction=false"]) == 0
    assert capsys.readouterr().out.startswith("not equivalent")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1", "1", "--policy", "percnt=true"], "unknown key --policy.percnt; known: bare_list_as_tuple, "),
        (
            ["1", "1", "--policy", "unit_optional=3"],
            "--policy.unit_optional: Input should be a valid boolean, unable to interpret input, not '3'",
        ),
        (
            ["1", "1", "--policy", "unit_optionl=true"],
            "unknown key --policy.unit_optionl (did you mean unit_optional?)",
        ),
        (["1", "1", "--policy", "unit_optional"], "--policy.unit_optional: Input should be a valid boolean"),
        (["1", "1", "--policy", "limit_s=0"], "limit_s is 0.0; it must be a number of seconds above 0"),
        (["1", "1", "--policy", "rounded_digits=2.5"], "--policy.rounded_digits: Input should be a valid integer"),
        (["1", ""], "empty"),
        (["--input", "nowhere.jsonl", "--output", "out.jsonl"], "nowhere.jsonl cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_policy_differs_in_what_is_given_and_is_a_policy():
    policy = read_policy(["limit_s=3", "max_length=50", "number_words=false"])
    assert policy == replace(DEFAULT, limit_s=3.0, max_length=50, number_words=False)


def test_lines_that_are_no_pairs_are_reported_and_the_others_graded(tmp_path, capsys):
    source, target = tmp_path / "in.jsonl", tmp_path / "new" / "out.jsonl"
    lines = ['{"pred": "1", "gold": "1"}', '{"pred": "1"}', "", "no JSON", "[1]", "7" * 5000]
    lines += ['{"pred": "1", "gold": "1", "form": "essay"}', '{"pred": "1", "gold": "1", "kind": ["text"]}']
    lines += ['{"pred": "2", "gold": "1"}']
    source.write_text("\n".join(lines) + "\n")
    assert main(["--input", str(source), "--output", str(target)]) == 1
    graded = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["equivalent"] for row in graded] == [True, *[None] * 6, False]
    assert [row["line"] for row in graded if row["tier"] == "line"] == [2, 4, 5, 6, 7, 8]
    assert 'in.jsonl, line 2: a row needs "pred", "gold"' in graded[1]["error"]
    assert "in.jsonl, line 4 is not JSON" in graded[2]["error"]
    captured = capsys.readouterr()
    assert captured.out.startswith("2 pairs: 1 equivalent, 1 not, 0 undecided")
    assert captured.err.startswith("6 lines are no pairs; the first: ") and "line 2: a row needs" in captured.err


def test_golds_may_be_numbers_of_json(tmp_path):
    rows = [{"pred": "1/2", "gold": 0.5}, {"pred": 4, "gold": 4.0}, {"pred": "100", "gold": 99}]
    rows += [{"pred": "so 7", "gold": 7, "form": "response"}, {"pred": "null", "gold": None}]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    assert main(["--input", str(source), "--output", str(target)]) == 0
    graded = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["equivalent"] for row in graded] == [True, True, False, True, None]
    assert graded[0]["gold"] == 0.5 and "the gold answer None" in graded[4]["error"]


def test_an_output_that_cannot_be_written_is_named(tmp_path, capsys):
    source = tmp_path / "in.jsonl"
    source.write_text('{"pred": "1", "gold": "1"}\n')
    assert main(["--input", str(source), "--output", str(source / "out.jsonl")]) == 2
    assert "out.jsonl cannot be written" in capsys.readouterr().err


def test_help_imports_no_sympy():
    code = (
        "import sys; from rewards.grade import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('sympy' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.endswith("False\n")
