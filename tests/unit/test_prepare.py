import io
import json

import pytest
from PIL import Image

from data_tools.prepare import Columns, image_bytes, main, to_example
from data_tools.rows import read_rows


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


def ids(path) -> set[str]:
    return {row.get("id") or row["extra_info"]["id"] for row in read_rows(path)}


def test_parquet_with_bytes_gives_all_files_and_disjoint_splits(tmp_path, capsys):
    source = write_source(tmp_path, ".parquet", rows_with(lambda i: [{"bytes": png(i), "path": None}]))
    out = tmp_path / "out"
    assert main([str(source), str(out), *ARGV, "--images-column", "pictures", "--response-column", "r"]) == 0
    names = {name: ids(out / f"{name}.parquet") for name in ("rl_train", "rl_val", "test", "sft_train", "sft_val")}
    assert [len(names[n]) for n in ("rl_train", "rl_val", "test")] == [5, 2, 3]  # 10 - 2 - 3 = 5
    assert names["sft_train"] == names["rl_train"] and names["sft_val"] == names["rl_val"]
    assert not names["test"] & (names["rl_train"] | names["rl_val"])
    row = read_rows(out / "test.parquet")[0]
    number = int(row["extra_info"]["id"])
    assert row["prompt"] == [{"role": "user", "content": f"<image>What is {number}?"}]
    assert row["images"] == [{"bytes": png(number)}]
    assert row["reward_model"]["ground_truth"] == str(number)
    chat = read_rows(out / "sft_val.parquet")[0]
    assert chat["messages"][1]["content"].endswith(f"<answer>{int(chat['id'])}</answer>")
    assert "10 rows, 0 of them duplicates" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_with_image_paths_beside_the_file(tmp_path, suffix):
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    source = write_source(tmp_path, suffix, rows_with(lambda i: f"{i}.png"))
    assert main([str(source), str(tmp_path / "out"), *ARGV, "--images-column", "pictures"]) == 0
    row = read_rows(tmp_path / "out" / "rl_train.parquet")[0]
    assert row["images"] == [{"bytes": png(int(row["extra_info"]["id"]))}]
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
    row = read_rows(out / "test.parquet")[0]
    assert row["images"] == [{"bytes": png(int(row["extra_info"]["id"]))}]


def test_text_only_source_and_duplicates(tmp_path, capsys):
    rows = rows_with(lambda i: None)
    source = write_source(tmp_path, ".jsonl", rows + rows[:4])
    assert main([str(source), str(tmp_path / "out"), *ARGV]) == 0
    assert "14 rows, 4 of them duplicates" in capsys.readouterr().out
    assert read_rows(tmp_path / "out" / "test.parquet")[0]["images"] == []


def test_the_seed_decides_the_split(tmp_path):
    source = write_source(tmp_path, ".jsonl", rows_with(lambda i: None, 40))
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert main([str(source), str(tmp_path / name), *ARGV, "--seed", seed]) == 0
    a, b, c = (read_rows(tmp_path / name / "rl_train.parquet") for name in "abc")
    assert a == b and [r["extra_info"]["id"] for r in a] != [r["extra_info"]["id"] for r in c]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--images-column", "photo"], "no column photo; it has q, a, pictures, r"),
        (["--test-rows", "8"], "leave none for training after 2 for validation and 8 for test"),
        (["--images-column", "pictures"], "row 0, column pictures: no such image file"),
    ],
)
def test_wrong_options(tmp_path, capsys, options, fault):
    source = write_source(tmp_path, ".jsonl", rows_with(lambda i: "none.png"))
    assert main([str(source), str(tmp_path / "out"), *ARGV, *options]) == 1
    assert fault in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_wrong_sources(tmp_path, capsys):
    (tmp_path / "table.csv").write_text("q,a")
    (tmp_path / "broken.parquet").write_text("not parquet")
    for source, fault in [
        ("none.jsonl", "no such data file"),
        ("table.csv", "unknown kind of file"),
        ("broken.parquet", "cannot load it"),
    ]:
        assert main([str(tmp_path / source), str(tmp_path / "out"), *ARGV]) == 1
        assert fault in capsys.readouterr().out


def test_an_empty_question_names_row_and_column(tmp_path):
    with pytest.raises(ValueError, match="row 7: column q is empty"):
        to_example({"q": " ", "a": "1"}, 7, Columns("q", "a"), tmp_path)


def test_image_values(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    same = [png(1), {"bytes": png(1), "path": None}, {"bytes": None, "path": "a.png"}, "a.png"]
    assert {image_bytes(value, tmp_path) for value in same} == {png(1)}
    assert Image.open(io.BytesIO(image_bytes(Image.new("RGB", (3, 4)), tmp_path))).size == (3, 4)
    for wrong in (None, b"", 5, {"bytes": None, "path": None}):
        with pytest.raises(ValueError, match="neither image bytes"):
            image_bytes(wrong, tmp_path)
