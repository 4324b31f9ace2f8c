"""Whole runs of `data_tools.convert` on small files: what becomes of every row, splits, options, mistakes."""

import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from data_tools.convert.__main__ import main
from data_tools.formats.sample import DataSample, SampleWriter, read_samples


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def drawing(seed: int, kind: str = "PNG", **options) -> bytes:
    rng = random.Random(seed)
    image = Image.new("RGB", (80, 60), "white")
    ImageDraw.Draw(image).line([(rng.randint(2, 78), rng.randint(2, 58)) for _ in range(5)], fill="black", width=3)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def row(seed: int, question: str = "", answer: str = "1", images: list | None = None) -> dict:
    pictures = [{"bytes": drawing(seed), "path": None}] if images is None else images
    return {"question": question or f"How many? {seed}", "answer": answer, "images": pictures}


def table(path, rows: list[dict]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def convert(*argv) -> int:
    return main(["columns", *map(str, argv), "--images-column", "images"])


def rejections(out) -> list[dict]:
    return [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]


def ids(path) -> list[int]:
    return [int(sample.id[-6:]) for sample in read_samples(path)]


def test_every_row_is_written_or_rejected_with_its_reason(tmp_path):
    missing = [{"bytes": None, "path": "none.png"}]
    rows = [
        row(0),
        row(1, answer=" "),
        row(2, images=missing),
        row(3, images=[{"bytes": b"not an image", "path": None}]),
        row(4, answer="a + * b"),
        row(0),  # again
        row(0, question="How many? 0", images=[{"bytes": drawing(0, "JPEG", quality=70), "path": None}]),
        row(0, question="What colour?"),  # another question about the same image
        row(8, question="<image><image>Which?"),
        row(9, images=[]),
    ]
    data, out = table(tmp_path / "a.parquet", rows), tmp_path / "out"
    assert convert(out, "--data", data) == 1  # 5 of 10 rows are bad
    assert ids(out / "train.parquet") == [0, 7, 9]
    found = {r["index"]: (r["kind"], r["text"]) for r in rejections(out)}
    assert {index: kind for index, (kind, _) in found.items()} == {
        1: "row",
        2: "image",
        3: "image",
        4: "gold",
        5: "duplicate row",
        6: "duplicate row",
        8: "row",
    }
    assert found[1][1] == "column answer is empty" and "no such image file" in found[2][1]
    assert "image 0: an image cannot be read" in found[3][1] and "'a + * b" in found[4][1]
    assert found[8][1] == "`<image>` stands 2 times in the text of 1 images"
    report = json.loads((out / "report.json").read_text())["splits"][0]
    assert (report["rows"], report["written"]) == (10, 3)
    assert report["rejected"] == {"row": 2, "image": 2, "gold": 1, "duplicate row": 2}
    assert convert(out, "--data", data, "--max-rejected", 0.5) == 0


def test_a_sample_holds_what_the_row_held(tmp_path):
    rows = [row(1) | {"choices": ["red", "blue"], "answer": "blue", "why": "<think>.</think><answer>B</answer>"}]
    out = tmp_path / "out"
    argv = ["--data", table(tmp_path / "a.parquet", rows), "--options-column", "choices", "--response-column", "why"]
    assert convert(out, *argv) == 0
    (sample,) = read_samples(out / "train.parquet")
    assert sample == DataSample(
        "columns-train-000000",
        "columns",
        "How many? 1",
        "B",
        "choice",
        (drawing(1),),
        ("red", "blue"),
        "<think>.</think><answer>B</answer>",
    )
    assert sample.prompt == "<image>How many? 1\n(A) red\n(B) blue"
    assert sample.read_images(out) == (drawing(1),)


def test_jsonl_with_paths_and_several_images(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(drawing(i))
    rows = [row(0, images=["0.png"]), row(1, images=["1.png", "2.png"]), row(2, images=[])]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert convert(tmp_path / "out", "--data", tmp_path / "a.jsonl") == 0
    samples = list(read_samples(tmp_path / "out" / "train.parquet"))
    assert [sample.images for sample in samples] == [(drawing(0),), (drawing(1), drawing(2)), ()]


def test_images_as_paths_are_stored_once_each(tmp_path):
    turned = io.BytesIO()
    Image.open(io.BytesIO(drawing(5))).save(turned, "BMP")
    rows = [row(0), row(0, question="What colour?"), row(5, images=[{"bytes": turned.getvalue(), "path": None}])]
    out = tmp_path / "out"
    assert convert(out, "--data", table(tmp_path / "a.parquet", rows), "--images", "paths") == 0
    first, second, third = read_samples(out / "train.parquet")
    (place,), (other,) = first.images, third.images
    assert first.images == second.images and isinstance(place, str) and place.startswith("images/")
    assert len(list((out / "images").iterdir())) == 2
    assert first.read_images(out) == (drawing(0),)
    assert isinstance(other, str) and other.endswith(".png") and third.read_images(out)[0].startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no such image file: /nowhere/images"):
        first.read_images("/nowhere")


def test_an_image_of_an_earlier_split_is_a_leak(tmp_path):
    again = [{"bytes": drawing(1, "JPEG", quality=90), "path": None}]
    test = table(tmp_path / "test.parquet", [row(0), row(1)])
    train = table(tmp_path / "train.parquet", [row(1, question="What colour?", images=again), row(2), row(0)])
    argv = ["--data", f"test={test}", "--data", f"train={train}"]
    assert convert(tmp_path / "out", *argv) == 0
    assert ids(tmp_path / "out" / "test.parquet") == [0, 1] and ids(tmp_path / "out" / "train.parquet") == [1]
    kinds = [(r["split"], r["index"], r["kind"]) for r in rejections(tmp_path / "out")]
    assert kinds == [("train", 0, "image of an earlier split"), ("train", 2, "duplicate row")]
    assert convert(tmp_path / "shared", *argv, "--shared-images") == 0
    assert ids(tmp_path / "shared" / "train.parquet") == [0, 1]


def test_images_of_a_benchmark_are_left_out(tmp_path):
    from data_tools import inspect

    convert(tmp_path / "bench", "--data", table(tmp_path / "bench.parquet", [row(0), row(1)]))
    hashes = tmp_path / "hashes.txt"
    assert inspect.main([str(tmp_path / "bench" / "train.parquet"), "--hashes", str(hashes)]) == 0
    again = [{"bytes": drawing(1, "JPEG", quality=90), "path": None}]
    data = table(tmp_path / "a.parquet", [row(1, question="What colour?", images=again), row(2)])
    assert convert(tmp_path / "out", "--data", data, "--benchmark", hashes) == 0
    assert ids(tmp_path / "out" / "train.parquet") == [1]
    assert rejections(tmp_path / "out")[0]["kind"] == "image of the benchmark list"


def test_a_numbered_id_says_source_split_and_row(tmp_path):
    data = table(tmp_path / "a.parquet", [row(0, answer=""), row(1)])
    convert(tmp_path / "out", "--data", data, "--split", "dev", "--max-rejected", "1")
    (sample,) = read_samples(tmp_path / "out" / "dev.parquet")
    assert sample.id == "columns-dev-000001"


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["geo3k", "out"], "unknown source 'geo3k'; known are geometry3k"),
        (["columns", "out"], "columns has no home on the hub: say with --data where its rows are"),
        (["columns", "out", "--data", "none.parquet"], "none.parquet: no such data file"),
        (["columns", "out", "--data", "table.csv"], "unknown kind of file; known are .parquet, .json, .jsonl, .arrow"),
        (["columns", "out", "--data", "broken.parquet"], "broken.parquet: cannot load it"),
        (["columns", "out", "--data", "empty.jsonl"], "empty.jsonl: the file is empty"),
        (
            ["m3cot", "out", "--data", "a.parquet"],
            "no column choices, image; it has question, answer, images. m3cot need",
        ),
        (
            ["columns", "out", "--data", "a.parquet", "--answer-column", "gold"],
            "no column gold; it has question, answer",
        ),
        (["columns", "out", "--data", "a.parquet", "--benchmark", "none.txt"], "none.txt: no such list of hashes"),
        (
            ["columns", "out", "--data", "a.parquet", "--data", "b.parquet"],
            "--data is given 2 times: write SPLIT=WHERE",
        ),
        (["columns", "out", "--data", "x=a.parquet", "--split", "y"], "already names every split"),
        (["columns", "out", "--data", "a.parquet", "--split", "x", "--split", "y"], "one file, but --split names 2"),
        (["columns", "out", "--data", "bad.parquet"], "none of the 1 rows of train is left; see out/rejected.jsonl"),
        (["geometry3k", "out"], "hiyouga/geometry3k: cannot load it"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(tmp_path, monkeypatch, capsys, argv, fault):
    monkeypatch.chdir(tmp_path)
    table("a.parquet", [row(0)])
    table("bad.parquet", [row(0, answer="")])
    (tmp_path / "table.csv").write_text("q,a")
    (tmp_path / "broken.parquet").write_text("not parquet")
    (tmp_path / "empty.jsonl").write_text("")
    assert main(argv) == 2
    printed = capsys.readouterr().err
    assert fault in printed and printed.rstrip().splitlines()[-1].startswith("avar convert: ")
    assert not list((tmp_path / "out").glob("*.parquet")) and not list((tmp_path / "out").glob(".*"))


def test_a_wrong_schema_shows_what_was_there(tmp_path, capsys):
    data = table(tmp_path / "a.parquet", [{"q": "Why?", "picture": drawing(0)}])
    assert main(["geometry3k", str(tmp_path / "out"), "--data", data]) == 2
    printed = capsys.readouterr().err
    assert "geometry3k needs images, problem, answer; the first row is q = 'Why?'; picture = " in printed
    assert f"{len(drawing(0))} bytes" in printed


def test_a_column_of_another_type_rejects_the_row(tmp_path):
    data = table(tmp_path / "a.parquet", [row(0) | {"choices": "red or blue", "answer": "red"}])
    assert convert(tmp_path / "out", "--data", data, "--options-column", "choices") == 2
    (rejection,) = rejections(tmp_path / "out")
    assert rejection["text"] == "column choices is a text that is no list of options: 'red or blue'"


def test_a_full_disk_is_one_sentence_and_the_split_before_stays(tmp_path, monkeypatch, capsys):
    test, train = (table(tmp_path / f"{name}.parquet", [row(seed)]) for name, seed in (("test", 0), ("train", 1)))
    write, calls = pq.ParquetWriter.write_table, []

    def disk_full(writer, *args, **kwargs):
        calls.append(writer)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(writer, *args, **kwargs)

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", disk_full)
    assert convert(tmp_path / "out", "--data", f"test={test}", "--data", f"train={train}") == 2
    assert "avar convert: [Errno 28] No space left on device" in capsys.readouterr().err
    assert ids(tmp_path / "out" / "test.parquet") == [0]
    assert not (tmp_path / "out" / "train.parquet").exists() and not list((tmp_path / "out").glob(".*"))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["splits"][0]["written"] == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_with_mixed_types_in_a_column_loads(tmp_path, name):
    (tmp_path / "1.png").write_bytes(drawing(1))
    rows = [row(0, answer="red", images=[]), row(1, images=["1.png"]) | {"answer": 3, "images": "1.png"}]
    text = json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows))
    (tmp_path / name).write_text(text)
    assert convert(tmp_path / "out", "--data", tmp_path / name) == 0
    first, second = read_samples(tmp_path / "out" / "train.parquet")
    assert [(first.gold, first.images), (second.gold, second.images)] == [("red", ()), ("3", (drawing(1),))]


def test_rows_are_written_in_small_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.formats.rows.BATCH_BYTES", 3 * len(drawing(0)))
    rows = [row(seed) for seed in range(40)]
    convert(tmp_path / "out", "--data", table(tmp_path / "a.parquet", rows))
    assert ids(tmp_path / "out" / "train.parquet") == list(range(40))
    assert pq.ParquetFile(tmp_path / "out" / "train.parquet").num_row_groups > 8


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"question": " "}, "`question` is empty"),
        ({"gold": ""}, "`gold` is empty"),
        ({"gold_kind": "guess"}, "unknown gold kind 'guess'; known are choice, number, expression, words"),
        ({"options": ("red",), "gold": "B"}, "gold 'B' names none of the 1 options"),
        ({"options": tuple("abc") * 9}, "27 options, more than there are letters"),
        ({"options": ("red",), "other_golds": ("red",)}, "other golds .'red'. stand beside options"),
        ({"other_golds": ("<|im_end|>",)}, "the gold holds chat markup"),
        ({"question": "<image>?"}, "stands 1 times in the text of 0 images"),
    ],
)
def test_a_sample_is_checked(changes, fault):
    with pytest.raises(ValueError, match=fault):
        DataSample(**{"id": "1", "source": "s", "question": "?", "gold": "A", "gold_kind": "choice"} | changes)


def test_a_faulty_sample_in_a_file_is_named(tmp_path):
    columns = {"options": None, "gold": "1", "gold_kind": "number", "images": [], "response": None, "extra": None}
    rows = [
        {"id": "a", "source": "s", "question": "?"} | columns,
        {"id": "b", "source": "s", "question": None} | columns,
    ]
    schema = SampleWriter(tmp_path / "x")._schema
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "a.parquet")
    samples = read_samples(tmp_path / "a.parquet")
    assert next(samples) == DataSample("a", "s", "?", "1", "number")
    with pytest.raises(ValueError, match=r"a\.parquet, sample b: `question` is empty"):
        next(samples)


def test_other_golds_survive_the_file_which_may_lack_them(tmp_path):
    samples = [DataSample("a", "s", "?", "1", "number", other_golds=("one",)), DataSample("b", "s", "?", "2", "number")]
    with SampleWriter(tmp_path / "a.parquet") as writer:
        for sample in samples:
            writer.add(sample)
    assert list(read_samples(tmp_path / "a.parquet")) == samples
    pq.write_table(pq.read_table(tmp_path / "a.parquet").drop_columns("other_golds"), tmp_path / "b.parquet")
    assert [sample.golds for sample in read_samples(tmp_path / "b.parquet")] == [("1",), ("2",)]


def test_files_that_hold_no_samples(tmp_path):
    table(tmp_path / "other.parquet", [row(0)])
    (tmp_path / "broken.parquet").write_text("no")
    for name, fault in [("none", "no such data file"), ("broken", "not a readable"), ("other", "missing columns id")]:
        with pytest.raises(ValueError, match=fault):
            list(read_samples(tmp_path / f"{name}.parquet"))


def test_a_failed_writer_leaves_nothing(tmp_path):
    sample = DataSample("1", "s", "?", "A", "choice")
    with pytest.raises(RuntimeError), SampleWriter(tmp_path / "a.parquet") as writer:
        writer.add(sample)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
