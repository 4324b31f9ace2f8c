"""`avar prepare` on RL rows that are ready: what is chosen, what is kept of a row, and what is refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avar_rl.runtime.files import read_parquet
from data_tools.formats.rows import rl_row, write_rows
from data_tools.formats.sample import DataSample, SampleWriter
from data_tools.inspect import inspect
from data_tools.inspect import main as inspect_main
from data_tools.prepare import main
from data_tools.validate import check_text

RATES = (0.0, 0.25, 0.5, 1.0)


def row(source: str, number: int, **extra) -> dict:
    made = rl_row(
        id=f"{source}-{number}",
        source=source,
        question=f"What is {number}?",
        gold=str(number),
        images=(b"png",) * (number % 2),
        index=number,
        split="rl_train",
    )
    made["extra_info"] |= extra
    return made


def write(path, rows: list[dict]):
    """Rows as `avar difficulty` leaves them: with columns and keys of their own."""
    write_rows(rows[:1], path)
    schema = pq.read_schema(path)
    keys = {key: pa.array([one["extra_info"].get(key) for one in rows]).type for key in rows[0]["extra_info"]}
    known = {field.name: field.type for field in schema.field("extra_info").type}
    schema = schema.set(schema.get_field_index("extra_info"), pa.field("extra_info", pa.struct(keys | known)))
    for name in rows[0].keys() - set(schema.names):
        schema = schema.append(pa.field(name, pa.array([one[name] for one in rows]).type))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


@pytest.fixture
def files(tmp_path):
    """a.parquet: 20 rows of source a, five of each of RATES; b.parquet: 12 rows of source b, three of each."""
    a = [row("a", n, pass_rate=RATES[n % 4], pass_samples=8) | {"note": f"n{n}"} for n in range(20)]
    b = [row("b", n, pass_rate=RATES[n % 4], pass_samples=8) for n in range(12)]
    return [str(write(tmp_path / "a.parquet", a)), str(write(tmp_path / "b.parquet", b))]


def train(folder) -> list[dict]:
    return read_parquet(folder / "rl_train.parquet")


def ids(rows: list[dict]) -> list[str]:
    return [one["extra_info"]["id"] for one in rows]


def test_rows_in_the_range_are_kept_whole_and_numbered_anew(files, tmp_path, capsys):
    assert main([files[0], str(tmp_path / "out"), "--keep-pass", "0.1-0.9"]) == 0
    rows, before = train(tmp_path / "out"), read_parquet(files[0])
    kept = [n for n in range(20) if n % 4 in (1, 2)]
    assert ids(rows) == [f"a-{n}" for n in kept]
    for index, (found, n) in enumerate(zip(rows, kept, strict=True)):
        expected = before[n] | {"extra_info": before[n]["extra_info"] | {"index": index, "split": "rl_train"}}
        assert found == expected and found["note"] == f"n{n}" and found["extra_info"]["pass_samples"] == 8
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if " a " in line]
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["20", "0", "10", "10", "100.0%", "0.375"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rl_train.parquet"]


def test_two_files_are_mixed_filtered_and_ordered(files, tmp_path, capsys):
    argv = [*files, str(tmp_path / "out"), "--mix", "a=2,b=1", "--keep-pass", "0.25-1", "--curriculum"]
    assert main(argv) == 0
    rows = train(tmp_path / "out")
    # 15 rows of a and 9 of b are in the range; 7.5 rows for each of three parts: 22 in all, 14.67 of a and 7.33 of b.
    assert [one["data_source"] for one in rows].count("a") == 15 and len(rows) == 22
    rates = [one["extra_info"]["pass_rate"] for one in rows]
    assert rates == sorted(rates, reverse=True)
    assert [one["extra_info"]["index"] for one in rows] == list(range(22))
    assert {one["note"] for one in rows if one["data_source"] == "b"} == {None}  # a's column, which b has not
    assert len(set(ids(rows))) == 22
    assert "data.shuffle=false" in capsys.readouterr().out


def test_the_seed_decides_and_the_same_command_writes_the_same_bytes(files, tmp_path):
    for name, seed in (("x", "0"), ("y", "0"), ("z", "1")):
        argv = [*files, str(tmp_path / name), "--mix", "a=1,b=1", "--val-rows", "4", "--test-rows", "4", "--seed", seed]
        assert main(argv) == 0
    x, y, z = ((tmp_path / name / "rl_train.parquet").read_bytes() for name in "xyz")
    assert x == y != z


def test_rows_are_held_out_before_the_choice(files, tmp_path, capsys):
    argv = [*files, str(tmp_path / "out"), "--keep-pass", "0.2-0.6", "--val-rows", "6", "--test-rows", "8"]
    assert main(argv) == 0
    held = {name: read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("rl_val", "test")}
    assert [len(rows) for rows in held.values()] == [6, 8]
    assert {one["extra_info"]["split"] for one in held["test"]} == {"test"}
    rates = {one["extra_info"]["pass_rate"] for rows in held.values() for one in rows}
    assert rates & {0.0, 1.0}  # easy and hard ones are tested on, too
    chosen = ids(train(tmp_path / "out"))
    assert not set(chosen) & {name for rows in held.values() for name in ids(rows)}
    assert all(one["extra_info"]["pass_rate"] in (0.25, 0.5) for one in train(tmp_path / "out"))
    assert f"rl_train   {len(chosen):>8} rows" in capsys.readouterr().out


def test_repeats_are_told(files, tmp_path, capsys):
    assert main([*files, str(tmp_path / "out"), "--mix", "b=1", "--mix-rows", "30"]) == 0
    rows = train(tmp_path / "out")
    assert len(rows) == 30 and len(set(ids(rows))) == 12 and {one["data_source"] for one in rows} == {"b"}
    assert [one["extra_info"]["index"] for one in rows] == list(range(30))
    assert "18 of the training rows repeat another" in capsys.readouterr().out


def test_rows_that_were_not_measured_are_left_out_and_counted(tmp_path, capsys):
    rows = [row("a", n, pass_rate=None if n < 3 else 0.5) for n in range(10)]
    assert main([str(write(tmp_path / "a.parquet", rows)), str(tmp_path / "out"), "--keep-pass", "0-1"]) == 0
    assert ids(train(tmp_path / "out")) == [f"a-{n}" for n in range(3, 10)]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if " a " in line]
    assert [cell.strip() for cell in line.split("│")[2:5]] == ["10", "3", "0"]


def test_plain_rl_rows_can_be_split_and_joined(tmp_path):
    for source in "ab":
        write_rows([row(source, n) for n in range(10)], tmp_path / f"{source}.parquet")
    argv = [str(tmp_path / "a.parquet"), "--val-rows", "3", str(tmp_path / "b.parquet"), str(tmp_path / "out")]
    assert main(argv) == 0
    rows = train(tmp_path / "out")
    assert len(rows) == 17 and len(read_parquet(tmp_path / "out" / "rl_val.parquet")) == 3
    assert ids(rows) == sorted(ids(rows)) and "pass_rate" not in rows[0]["extra_info"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--keep-pass", "0.9-0.1"], "--keep-pass is '0.9-0.1'"),
        (["--keep-pass", "0.3-0.4"], "--keep-pass: no training row is in the range"),
        (["--mix", "a=1,c=1"], "--mix: no training row is of 'c'; there are a, b"),
        (["--mix", "a=1,b=0"], "--mix b: Input should be greater than 0, not '0'"),
        (["--mix-rows", "5"], "--mix-rows is the size of a mixture"),
        (["--test-rows", "32"], "32 distinct rows leave none for training"),
        (["--images-column", "images"], "--images-column says how raw data is read; "),
        (["--markup", "escape"], "--markup says how raw data is read; "),
    ],
)
def test_wrong_options_write_nothing(files, tmp_path, capsys, options, fault):
    assert main([*files, str(tmp_path / "out"), *options]) == 2
    printed = capsys.readouterr()
    assert fault in printed.err and printed.err.startswith("avar prepare: ") and printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_wrong_sources_are_named(files, tmp_path, capsys):
    (tmp_path / "raw.jsonl").write_text('{"question": "?", "answer": "1"}\n')
    with SampleWriter(tmp_path / "samples.parquet") as writer:
        writer.add(DataSample("s-0", "s", "How many?", "1", "number"))
    write_rows([row("c", 0)], tmp_path / "plain.parquet")
    write(tmp_path / "odd.parquet", [row("d", 0, pass_rate=1.5)])
    write(tmp_path / "text.parquet", [row("d", 0, pass_rate="half")])
    write(tmp_path / "notes.parquet", [row("d", 0) | {"note": 1}])
    renamed = tmp_path / "rl_train.parquet"
    renamed.write_bytes((tmp_path / "a.parquet").read_bytes())
    mixed, kept = ["--mix", "a=1"], ["--keep-pass", "0-1"]
    for sources, options, fault in [
        (["none.parquet"], mixed, "none.parquet: no such data file"),
        (["a.parquet", "none.parquet"], [], "none.parquet: no such data file"),
        (["raw.jsonl"], mixed, "--mix takes RL rows, and "),
        (["samples.parquet"], kept, "--keep-pass takes RL rows, and "),
        (["a.parquet", "raw.jsonl"], [], "several sources must be RL rows, and "),
        (["plain.parquet"], kept, "--keep-pass: no training row of c has a pass rate; `avar difficulty"),
        (["odd.parquet"], [], "odd.parquet, row 0: extra_info.pass_rate is 1.5; it must be a number from 0 to 1"),
        (["text.parquet"], [], "extra_info.pass_rate is 'half'"),
        (["notes.parquet", "a.parquet"], [], "a column is of another type than elsewhere"),
        (["a.parquet", "a.parquet"], [], "a file is given twice"),
        (["rl_train.parquet"], [], "rl_train.parquet is a source; choose another folder"),
    ]:
        paths = [str(tmp_path / name) for name in sources]
        out = tmp_path if sources == ["rl_train.parquet"] else tmp_path / "out"
        assert main([*paths, str(out), *options]) == 2, fault
        printed = capsys.readouterr().err
        assert fault in printed and printed.startswith("avar prepare: ") and printed.count("\n") == 1
    assert not (tmp_path / "out").exists() and renamed.exists()


def test_inspect_shows_pass_rates_in_their_order(files, tmp_path, capsys):
    assert inspect(tmp_path / "b.parquet", None, 0, 0, None).pass_rates == list(RATES) * 3
    inspect_main([files[1]])
    lines = [line for line in capsys.readouterr().out.splitlines() if "25.0%" in line]
    assert [line.split("│")[1].strip() for line in lines] == [
        "0: never right", "0.25 to under 0.5", "0.5 to under 0.75", "1: always right",
    ]  # fmt: skip
    assert all(line.split("│")[2].strip() == "3" and "█" * 40 in line for line in lines)
    write_rows([row("c", 0)], tmp_path / "plain.parquet")
    inspect_main([str(tmp_path / "plain.parquet")])
    assert "pass rate" not in capsys.readouterr().out


def any_gold(gold: str) -> None:
    pass


def test_a_pass_rate_that_is_none_is_a_fault_of_the_row():
    for value, fault in [(2, "is 2;"), (float("nan"), "is nan;"), (True, "is True;"), ("1", "is '1';")]:
        faults = check_text(row("a", 0, pass_rate=value), any_gold)
        assert len(faults) == 1 and f"extra_info.pass_rate {fault}" in faults[0]
    for value in (0, 0.5, 1, None):
        assert check_text(row("a", 0, pass_rate=value), any_gold) == []
