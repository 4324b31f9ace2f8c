"""`avar difficulty` without an engine: how kept responses become pass rates, what is written, what is refused."""

import shutil

from avar_rl.evaluation.answering.questions import Question
from avar_rl.evaluation.difficulty import Difficulty, difficulty, main, print_report, write_rated
from avar_rl.probe.samples import Conversation
from avar_rl.runtime.files import read_parquet
from data_tools.formats.rows import rl_row, write_rows

SLOW = r"\int_0^1 x^{x^{x^x}} dx"  # against π/7, sympy does not end in time


def asked(gold: str, **more) -> Question:
    return Question(Conversation("q", ({"role": "user", "content": "?"},), ()), "count", gold, **more)


def kept(*answers: str) -> list[dict]:
    return [{"response": f"<answer>{a}</answer>", "truncated": i < 2} for i, a in enumerate(answers)]


def test_a_pass_rate_is_the_share_of_right_responses():
    found = difficulty(asked("3"), kept("3", "4", "3.0", "six", r"\frac{6}{2}", "", "30", "2"))
    assert found == Difficulty("count", right=3, wrong=5, undecided=0, truncated=2)
    assert found.keys() == {"pass_rate": 0.375, "pass_samples": 8}


def test_any_right_answer_and_the_text_of_an_option_count():
    assert difficulty(asked("B", options=("red", "blue")), kept("blue", "B", "red")).keys()["pass_rate"] == 2 / 3
    assert difficulty(asked("Ann Lee", other_golds=("Ann",)), kept("Ann", "Bo")).keys()["pass_rate"] == 0.5


def test_undecided_responses_are_neither_right_nor_wrong():
    found = difficulty(asked(r"\frac{\pi}{7}"), kept(SLOW, r"\pi/7", "1", "2"))
    assert (found.right, found.wrong, found.undecided) == (1, 2, 1)
    assert found.keys() == {"pass_rate": 1 / 3, "pass_samples": 3}
    assert difficulty(asked(r"\frac{\pi}{7}"), kept(SLOW)).keys() == {"pass_rate": None, "pass_samples": 0}


def row(number: int, **more) -> dict:
    made = rl_row(
        id=f"r-{number}", source="s", question="?", gold="1", images=(b"png",) * number, index=number, split="rl_train"
    )
    return made | more


def test_the_copy_is_the_file_with_two_keys_more(tmp_path):
    rows, out = [row(0), row(1), row(2, ability="math")], tmp_path / "deep" / "out.parquet"
    write_rows(rows, tmp_path / "rl.parquet")
    found = [Difficulty("s", 1, 3, 0, 0), Difficulty("s", 0, 0, 4, 0), Difficulty("s", 4, 0, 0, 0)]
    write_rated(tmp_path / "rl.parquet", out, found)
    keys = [{"pass_rate": 0.25, "pass_samples": 4}, {"pass_rate": None, "pass_samples": 0}]
    keys += [{"pass_rate": 1.0, "pass_samples": 4}]
    assert read_parquet(out) == [
        one | {"extra_info": one["extra_info"] | key} for one, key in zip(rows, keys, strict=True)
    ]
    write_rated(out, tmp_path / "again.parquet", found[::-1][:2])  # other rates take their place; the first rows only
    again = [one["extra_info"]["pass_rate"] for one in read_parquet(tmp_path / "again.parquet")]
    assert again == [1.0, None] and read_parquet(tmp_path / "again.parquet")[1]["images"] == [{"bytes": b"png"}]


def test_the_report_has_every_kind_and_every_rate(capsys):
    found = [Difficulty("a", 0, 8, 0, 3), Difficulty("a", 8, 0, 0, 0), Difficulty("a", 1, 6, 1, 0)]
    print_report([*found, Difficulty("b", 0, 0, 8, 8)])
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["a", "3", "0.381", "2", "24", "1", "3"] in lines  # (0 + 1 + 1/7) / 3
    assert ["b", "1", "-", "0", "8", "8", "8"] in lines
    shares = {cells[0]: cells[1:3] for cells in lines if len(cells) == 4}
    assert shares["0: never right"] == shares["1: always right"] == shares["not measured"] == ["1", "25.0%"]
    assert shares["under 0.25"] == ["1", "25.0%"] and shares["0.5 to under 0.75"] == ["0", "0.0%"]


def test_mistakes_are_one_sentence(tiny_world, tmp_path, capfd, monkeypatch):
    for name in ("OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING", "TORCHDYNAMO_DISABLE"):
        monkeypatch.setenv(name, "1")  # main() sets what is not set; monkeypatch puts it back
    (tmp_path / "empty").mkdir()
    base, data = str(tiny_world / "base"), str(tmp_path / "rl.parquet")
    shutil.copy(tiny_world / "data" / "test.parquet", data)
    rows = read_parquet(data)
    rows[3]["extra_info"]["id"] = name = rows[1]["extra_info"]["id"]
    write_rows(rows[:5], tmp_path / "twice.parquet")
    for argv, fault in [
        ([str(tmp_path / "empty"), data], "holds no weights"),
        ([base, str(tmp_path / "none.parquet")], "none.parquet: no such data file"),
        ([base, str(tiny_world / "data" / "sft_val.parquet")], "holds chat rows"),
        ([base, str(tmp_path / "twice.parquet")], f"rows 1 and 3 are both called {name}; make their ids differ"),
        ([base, data, "--out", data], "it must be a parquet file other than"),
        ([base, data, "--out", str(tmp_path / "out.json")], "it must be a parquet file other than"),
        ([base, data, "--samples", "0"], "--samples: Input should be greater than or equal to 1, not 0"),
        ([base, data, "--replicas", "0"], "--replicas: Input should be greater than or equal to 1, not 0"),
        ([base, data, "--temperature", "0"], "temperature is 0.0; samples need one above 0"),
        ([base, data, "--temperature", "nan"], "temperature: Input should be a finite number"),
        ([base, data, "--limit", "0"], "limit is 0; it must be at least 1"),
    ]:
        assert main(argv) == 2, argv
        printed = capfd.readouterr().err
        assert fault in printed and printed.splitlines()[-1].startswith("avar difficulty: ")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"empty", "rl.parquet", "twice.parquet"}
