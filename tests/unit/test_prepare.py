import io
import json

import pytest
from PIL import Image

from avar_rl.runtime.files import read_parquet
from data_tools.formats.sample import DataSample, SampleWriter
from data_tools.prepare import main


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (28, 28), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write_source(folder, suffix: str, rows: list[dict]):
    path = folder / f"source{suffix}"
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return path


def rows_with(images, count: int = 10) -> list[dict]:
    return [
        {"q": f"What is {i}?", "a": i, "pictures": images(i), "r": f"<think>{i}</think><answer>{i}</answer>"}
        for i in range(count)
    ]


ARGV = ["--question-column", "q", "--answer-column", "a", "--val-rows", "2", "--test-rows", "3"]


def number(id_: str) -> int:
    """The index of the source row, which ends an id."""
    return int(id_[-6:])


def ids(path) -> set[str]:
    return {row.get("id") or row["extra_info"]["id"] for row in read_parquet(path)}


def test_parquet_with_bytes_gives_all_files_and_disjoint_splits(tmp_path, capsys):
    source = write_source(tmp_path, ".parquet", rows_with(lambda i: [{"bytes": png(i), "path": None}]))
    out = tmp_path / "out"
    assert main([str(source), str(out), *ARGV, "--images-column", "pictures", "--response-column", "r"]) == 0
    names = {name: ids(out / f"{name}.parquet") for name in ("rl_train", "rl_val", "test", "sft_train", "sft_val")}
    assert [len(names[n]) for n in ("rl_train", "rl_val", "test")] == [5, 2, 3]  # 10 - 2 - 3 = 5
    assert names["sft_train"] == names["rl_train"] and names["sft_val"] == names["rl_val"]
    assert not names["test"] & (names["rl_train"] | names["rl_val"])
    row = read_parquet(out / "test.parquet")[0]
    i = number(row["extra_info"]["id"])
    assert row["prompt"] == [{"role": "user", "content": f"<image>What is {i}?"}]
    assert row["images"] == [{"bytes": png(i)}]
    assert row["reward_model"]["ground_truth"] == str(i)
    chat = read_parquet(out / "sft_val.parquet")[0]
    assert chat["messages"][1]["content"].endswith(f"<answer>{number(chat['id'])}</answer>")
    assert "10 rows, 0 of them duplicates" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_with_image_paths_beside_the_file(tmp_path, suffix):
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    source = write_source(tmp_path, suffix, rows_with(lambda i: f"{i}.png"))
    assert main([str(source), str(tmp_path / "out"), *ARGV, "--images-column", "pictures"]) == 0
    row = read_parquet(tmp_path / "out" / "rl_train.parquet")[0]
    assert row["images"] == [{"bytes": png(number(row["extra_info"]["id"]))}]
    assert not (tmp_path / "out" / "sft_train.parquet").exists()


def test_parquet_with_an_image_feature_is_not_encoded_again(tmp_path):
    import datasets

    features = datasets.Features(
        {"q": datasets.Value("string"), "a": datasets.Value("string"), "pictures": datasets.Image()}
    )
    rows = [{"q": str(i), "a": "1", "pictures": {"bytes": png(i), "path": None}} for i in range(10)]
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "source.parquet")
    out = tmp_path / "out"
    assert main([str(tmp_path / "source.parquet"), str(out), *ARGV, "--images-column", "pictures"]) == 0
    row = read_parquet(out / "test.parquet")[0]
    assert row["images"] == [{"bytes": png(number(row["extra_info"]["id"]))}]


def test_text_only_source_and_duplicates(tmp_path, capsys):
    rows = rows_with(lambda i: None)
    source = write_source(tmp_path, ".jsonl", rows + rows[:4])
    assert main([str(source), str(tmp_path / "out"), *ARGV]) == 0
    assert "14 rows, 4 of them duplicates" in capsys.readouterr().out
    assert read_parquet(tmp_path / "out" / "test.parquet")[0]["images"] == []


def test_the_seed_decides_the_split(tmp_path):
    source = write_source(tmp_path, ".jsonl", rows_with(lambda i: None, 40))
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert main([str(source), str(tmp_path / name), *ARGV, "--seed", seed]) == 0
    a, b, c = (read_parquet(tmp_path / name / "rl_train.parquet") for name in "abc")
    assert a == b and [r["extra_info"]["id"] for r in a] != [r["extra_info"]["id"] for r in c]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--images-column", "photo"], "no column photo; it has q, a, pictures, r"),
        (["--val-rows", "-1"], "--val-rows is -1; it must be at least 0"),
        (["--test-rows", "8"], "leave none for training after 2 for validation and 8 for test"),
        (["--images-column", "pictures"], "row 0: image 0: no such image file"),
    ],
)
def test_wrong_options(tmp_path, capsys, options, fault):
    source = write_source(tmp_path, ".jsonl", rows_with(lambda i: "none.png"))
    assert main([str(source), str(tmp_path / "out"), *ARGV, *options]) == 2
    assert fault in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert not list((tmp_path / "out").glob(".*"))


def test_wrong_sources(tmp_path, capsys):
    (tmp_path / "table.csv").write_text("q,a")
    (tmp_path / "broken.parquet").write_text("not parquet")
    for source, fault in [
        ("none.jsonl", "no such data file"),
        ("table.csv", "unknown kind of file"),
        ("broken.parquet", "cannot load it"),
    ]:
        assert main([str(tmp_path / source), str(tmp_path / "out"), *ARGV]) == 2
        assert fault in capsys.readouterr().err


def test_a_bad_row_stops_with_its_number(tmp_path, capsys):
    rows = rows_with(lambda i: None)
    for column, value, fault in [
        ("q", " ", "row 7: column q is empty"),
        ("a", "a + * b", "row 7: the gold answer 'a + *"),
    ]:
        bad = [row | ({column: value} if i == 7 else {"a": str(row["a"])}) for i, row in enumerate(rows)]
        source = write_source(tmp_path, ".jsonl", bad)
        assert main([str(source), str(tmp_path / "out"), *ARGV]) == 2
        assert fault in capsys.readouterr().err


def test_a_file_of_samples_needs_no_columns_and_gives_sft_rows_where_it_has_responses(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for name, response in (("with", "<think>.</think><answer>1</answer>"), ("without", None)):
        with SampleWriter(tmp_path / f"{name}.parquet") as writer:
            for i in range(10):
                (tmp_path / "images" / f"{i}.png").write_bytes(png(i))
                sample = DataSample(
                    f"s-{i}",
                    "s",
                    f"How many? {i}",
                    "1",
                    "number",
                    (f"images/{i}.png",),
                    response=response,
                    other_golds=("one",),
                )
                writer.add(sample)
        argv = [str(tmp_path / f"{name}.parquet"), str(tmp_path / name), "--val-rows", "2", "--test-rows", "3"]
        assert main(argv) == 0
    row = read_parquet(tmp_path / "with" / "test.parquet")[0]
    i = int(row["extra_info"]["id"][-1])
    assert (row["data_source"], row["images"]) == ("s", [{"bytes": png(i)}])
    assert (row["extra_info"]["kind"], row["extra_info"]["gold_kind"]) == ("", "number")  # no families of questions
    assert row["extra_info"]["other_golds"] == ["one"]
    assert len(read_parquet(tmp_path / "with" / "sft_train.parquet")) == 5
    assert not (tmp_path / "without" / "sft_train.parquet").exists()
