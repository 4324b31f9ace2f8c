"""python -m rewards.grade: one pair, a file of pairs, and mistakes in one sentence."""

import json
import subprocess
import sys

import pytest

from rewards.grade import main


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
        (["1", "1", "--policy", "percnt=true"], "unknown name 'percnt'; known: percent_as_fraction"),
        (["1", "1", "--policy", "unit_optional=3"], "unit_optional takes a value like true"),
        (["1", "1", "--policy", "limit_s=0"], "above 0"),
        (["1", ""], "empty"),
        (["--input", "nowhere.jsonl", "--output", "out.jsonl"], "nowhere.jsonl cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_row_that_is_no_pair_is_named(tmp_path, capsys):
    source = tmp_path / "in.jsonl"
    source.write_text('{"pred": "1", "gold": "1"}\n{"pred": "1"}\n')
    assert main(["--input", str(source), "--output", str(tmp_path / "out")]) == 2
    assert "line 2: a row needs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_imports_no_sympy():
    code = (
        "import sys; from rewards.grade import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('sympy' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.endswith("False\n")
