"""Strict reading: official number and order, what cannot be read, duplicates, markup, limits, TSV files, places of
parts; and that the miniature's benchmarks are read as the real ones are."""

import base64
import io
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from avar_rl.evaluation.benchmarks.benchmark import BENCHMARKS, chosen, copies_in, read
from data_tools.convert.__main__ import main as convert
from data_tools.convert.strict import BenchmarkPart, read_part
from data_tools.convert.tsv import tsv_rows
from data_tools.formats.sample import SampleWriter, known_options, read_samples
from data_tools.miniature.benchmarks import main, write_benchmarks


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def png(seed: int = 0, size: int = 20) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), (seed * 20, 10, 10)).save(file, "PNG")
    return file.getvalue()


def star(index: int, **more) -> dict:
    question = f"Which of {index}?\nOptions: A: x, B: y"
    image = {"bytes": png(index % 10), "path": None}
    return {"index": index, "question": question, "image": image, "answer": "B", "category": "math"} | more


def table(path, rows: list[dict]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def stars(tmp_path, rows: list[dict], n: int | None = None, limit: int | None = None):
    part = BenchmarkPart("val", "mmstar", "val", len(rows) if n is None else n)
    return read_part(part, table(tmp_path / "a.parquet", rows), "mmstar/val", limit)


def test_all_rows_are_there_in_their_order_duplicates_and_all(tmp_path):
    rows = [star(index) for index in (3, 1, 2)] + [star(1), star(1)]
    samples = stars(tmp_path, rows)
    assert [sample.extra["index"] for sample in samples] == [3, 1, 2, 1, 1]
    assert [sample.id for sample in samples] == [f"mmstar/val/{id}" for id in ("3", "1", "2", "row-3", "row-4")]
    assert samples[1].question == samples[3].question and samples[1].images == samples[3].images


def test_more_rows_than_are_read_ahead_keep_their_order(tmp_path):
    samples = stars(tmp_path, [star(index) for index in range(100)])
    assert [sample.extra["index"] for sample in samples] == list(range(100))


def test_a_gold_that_no_grader_reads_is_a_gold(tmp_path):
    row = {"id": "1", "question": "?", "options": [], "image": {"bytes": png(), "path": None}, "answer": "a + * b"}
    part = BenchmarkPart("test", "mathvision", "test", 1)
    (sample,) = read_part(part, table(tmp_path / "a.parquet", [row]), "mathvision/test")
    assert sample.gold == "a + * b"


def test_another_number_of_questions_is_an_error_that_says_both(tmp_path):
    rows = [star(index) for index in range(3)]
    for n in (2, 4):
        with pytest.raises(
            ValueError, match=rf"a.parquet: 3 questions, but mmstar has {n} in val: the file is not the"
        ):
            stars(tmp_path, rows, n)


def test_a_limit_takes_the_first_and_asks_for_no_number(tmp_path):
    rows = [star(0), star(1), star(2, answer="")]  # the last of them is never read
    assert [sample.extra["index"] for sample in stars(tmp_path, rows, 1500, limit=2)] == [0, 1]
    assert len(stars(tmp_path, rows[:2], 1500, limit=9)) == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"answer": ""}, "column answer is empty"),
        ({"answer": "red"}, "the answer 'red' is no letter"),
        ({"question": ""}, "column question is empty"),
        ({"image": None}, "image 0: an image is neither bytes nor the path of a file nor base64, but nothing"),
        ({"image": {"bytes": b"no image", "path": None}}, "image 0: an image cannot be read"),
        ({"image": {"bytes": png()[:60], "path": None}}, "image 0: an image cannot be read"),
        ({"image": {"bytes": None, "path": "none.png"}}, "image 0: no such image file"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error_that_names_it(tmp_path, fault, said):
    with pytest.raises(ValueError, match=rf"a.parquet, row 1 \(index 7\): {said}"):
        stars(tmp_path, [star(0), star(7, **fault), star(2)])


def test_a_line_that_is_no_json_is_an_error_that_names_it(tmp_path):
    row = star(0, image={"bytes": None, "path": "a.png"})
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(row)}\n{{oops\n")
    with pytest.raises(ValueError, match="row 1: line 2 is no JSON"):
        read_part(BenchmarkPart("val", "mmstar", "val", 2), str(tmp_path / "a.jsonl"), "mmstar/val")


def test_markup_is_taken_apart_and_said_so(tmp_path):
    system = "<|im_start|>system Which?\nOptions: A: <video>, B: y"
    rows = [star(0), star(1, question=system), star(2, question="What does <image> say, <image>?")]
    plain, marked, placed = stars(tmp_path, rows)
    assert "markup_escaped" not in plain.extra
    assert (marked.question, marked.options) == ("<| im_start |>system Which?", ("< video >", "y"))
    assert marked.extra["markup_escaped"] and marked.extra["question"].startswith("<| im_start |>system Which?")
    assert placed.prompt == "<image>What does < image > say, < image >?" and placed.extra["markup_escaped"]


def test_an_image_place_in_a_text_stays_where_there_is_one_for_each_image(tmp_path):
    (sample,) = stars(tmp_path, [star(0, question="What does <image> say?\nOptions: A: x, B: y")])
    assert sample.question == "What does <image> say?" and "markup_escaped" not in sample.extra


def test_only_the_rows_kept_count(tmp_path):
    row = {"question": "?", "answer": "1", "image": {"bytes": png(), "path": None}, "question_type": "free-form"}
    rows = [
        row | {"problem_version": version, "sample_index": str(n), "question": "" if n % 2 else "?"}
        for n, version in enumerate(["Text Lite", "Vision Only", "Text Lite", "Vision Only"])
    ]
    where = table(tmp_path / "a.parquet", rows)
    only = BenchmarkPart("testmini", "mathverse", "testmini", 2, {"problem_version": "Vision Only"})
    assert [sample.id for sample in read_part(only, where, "v")] == ["v/1", "v/3"]
    assert [sample.id for sample in read_part(only, where, "v", limit=1)] == ["v/1"]
    with pytest.raises(ValueError, match="2 questions with problem_version Vision Only, but mathverse has 788"):
        read_part(replace(only, n=788), where, "v")
    with pytest.raises(ValueError, match="no question with problem_version Vision only"):
        read_part(replace(only, keep={"problem_version": "Vision only"}), where, "v", limit=5)


def test_offline_a_hub_name_is_read_from_the_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    part = BenchmarkPart("val", "mmstar", "val", 2)
    with pytest.raises(ValueError, match="Lin-Chen/MMStar: cannot load it"):
        read_part(part, "Lin-Chen/MMStar", "mmstar/val")
    repository = tmp_path / "hub" / "datasets--Lin-Chen--MMStar"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    readme = "---\nconfigs:\n- config_name: val\n  data_files:\n  - split: val\n    path: mmstar.parquet\n---\n"
    (snapshot / "README.md").write_text(readme)
    table(snapshot / "mmstar.parquet", [star(0), star(1)])
    assert [sample.extra["index"] for sample in read_part(part, "Lin-Chen/MMStar", "mmstar/val")] == [0, 1]


# TSV


def rows_of(tmp_path, text: str) -> list:
    (tmp_path / "a.tsv").write_bytes(text.encode())
    return list(tsv_rows(tmp_path / "a.tsv"))


LONG, OTHER = (base64.b64encode(png(seed, 40)).decode() for seed in (1, 2))


def test_a_tsv_has_tabs_and_line_ends_and_quotes_in_cells(tmp_path):
    assert len(LONG) > 64
    text = f'\ufeffindex\timage\tquestion\n0\t{LONG}\t"a\tb\nand ""c"""\n1\t{OTHER}\t5" wide\n'
    first, second = rows_of(tmp_path, text)
    assert (first["index"], first["image"], first["question"]) == ("0", LONG, 'a\tb\nand "c"')
    assert second["question"] == '5" wide'


def test_a_tsvs_picture_may_be_that_of_another_row_before_or_after_it(tmp_path):
    text = f"index\timage\n0\t2\n1\t{LONG}\n2\t{OTHER}\n3\t1\n4\t3\n5\t\n6\t9\n"
    rows = rows_of(tmp_path, text)
    assert [row["image"] for row in rows[:4]] == [OTHER, LONG, OTHER, LONG]
    assert rows[4].text == "row 4: column image refers to row 3, which has no picture"
    assert rows[5]["image"] == [] and rows[6].text.endswith("refers to row 9, which has no picture")


def test_a_tsvs_pictures_may_be_a_list_or_paths(tmp_path):
    text = f"index\timage\n0\t\"['{LONG}', '{OTHER}']\"\n1\t['{OTHER}']\n2\t0\n"
    assert [row["image"] for row in rows_of(tmp_path, text)] == [[LONG, OTHER], OTHER, [LONG, OTHER]]
    paths = rows_of(tmp_path, "index\timage_path\n0\ta.png\n1\t['a.png', 'b.png']\n")
    assert [row["image"] for row in paths] == ["a.png", ["a.png", "b.png"]]


def test_a_broken_row_of_a_tsv_is_told_from_the_others(tmp_path):
    first, second, third = rows_of(tmp_path, "index\tquestion\n0\n1\ta\n2\tb\tc\n")
    assert first.text == "line 2 ends a row of 1 cells, not 2" and second["question"] == "a"
    assert third.text == "line 4 ends a row of 3 cells, not 2"
    with pytest.raises(ValueError, match="no column index; it has a, b"):
        rows_of(tmp_path, "a\tb\n1\t2\n")


def test_a_tsv_cell_may_have_many_megabytes(tmp_path):
    cell = "iVBORw0KGgo" + "A" * 3_000_000
    (row,) = rows_of(tmp_path, f"index\timage\n0\t{cell}\n")
    assert row["image"] == cell


def test_a_source_without_a_tsv_layout_says_so(tmp_path, capsys):
    (tmp_path / "a.tsv").write_text("index\tquestion\n0\ta\n")
    assert convert(["mmk12", str(tmp_path / "out"), "--data", str(tmp_path / "a.tsv")]) == 2
    assert "mmk12 has no TSV layout; give parquet or JSON" in capsys.readouterr().err


# The registry's reading, on the miniature's files


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    write_benchmarks(folder, rows=12)
    return folder


def test_the_miniatures_benchmarks_are_read_with_a_limit_only(copies):
    for benchmark in chosen(["all"]):
        where = copies_in(copies, benchmark)
        samples = read(benchmark, where, limit=100)
        assert len({sample.id for sample in samples}) == len(samples)
        assert all(sample.id.startswith(f"{benchmark.name}/") and sample.images for sample in samples)
        with pytest.raises(ValueError, match=rf"but \w+ has {benchmark.parts[0].n} in"):
            read(benchmark, where)


def test_the_miniatures_samples_have_their_groups_and_clusters(copies):
    for benchmark in chosen(["all", "mathverse"]):
        for sample in read(benchmark, copies_in(copies, benchmark), limit=100):
            wanted = (*benchmark.groups, *benchmark.cluster, "part", "answer")
            assert not [key for key in wanted if key not in sample.extra], sample.id


def test_the_miniature_has_the_traps_of_the_real_ones(copies):
    all_ = {b.name: read(b, copies_in(copies, b), 100) for b in chosen(["all", "mathverse"])}
    vista, vision, mmmu = all_["mathvista"], all_["mathvision"], all_["mmmu"]
    assert len(set(vista[0].options)) < len(vista[0].options) and vista[1].options == tuple("ABCD")
    assert {"unit", "precision"} <= set(vista[3].extra) and vista[4].gold == "[2, 3]"
    assert vision[0].extra["answer"].startswith("\f") and vision[0].gold.startswith(r"\f")
    assert (vision[1].gold, vision[2].options, vision[2].gold_kind) == (r"90^\circ", (), "choice")
    assert known_options(vision[3]) == tuple("ABCDE") and not vision[3].options
    assert (len(mmmu[0].options), len(mmmu[1].images), mmmu[2].options) == (9, 7, ("<image>", "<image>"))
    assert mmmu[3].images[0] == mmmu[3].images[1] and len(mmmu[5].golds) == 2
    standard, shown = all_["mmmu_pro"][:12], all_["mmmu_pro"][12:]
    assert [s.extra["id"] for s in standard] == [s.extra["id"] for s in shown]
    assert known_options(standard[1]) == known_options(shown[1]) and standard[1].images == shown[1].images
    assert "None" in all_["mmstar"][0].options
    sets = {tuple(s.extra[k] for k in ("category", "subcategory", "set_id")) for s in all_["hallusionbench"]}
    assert len(sets) == 3 and all_["hallusionbench"][0].images == all_["hallusionbench"][1].images
    assert len({s.extra["problem_version"] for s in all_["mathverse"]}) == 5


def test_equal_seeds_give_equal_files_and_others_others(tmp_path, capsys):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert main(["--out", str(tmp_path / name), "--rows", "8", "--seed", str(seed)]) == 0
    files = [file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*") if file.is_file()]
    assert len(files) == 8 + 8  # the tables, and the pictures of the JSON file
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a" / "mmstar.tsv").read_bytes() != (tmp_path / "c" / "mmstar.tsv").read_bytes()
    assert main(["--out", str(tmp_path / "d"), "--rows", "3"]) == 2
    assert "rows are 3; it takes at least 8 for all traps" in capsys.readouterr().err


def test_samples_survive_their_file(copies, tmp_path):
    samples = read(BENCHMARKS["mathvision"], copies_in(copies, BENCHMARKS["mathvision"]), 100)
    with SampleWriter(tmp_path / "a.parquet") as writer:
        for sample in samples:
            writer.add(sample)
    assert list(read_samples(tmp_path / "a.parquet")) == samples


def test_every_part_has_a_place_or_an_error(copies):
    pro, vista = BENCHMARKS["mmmu_pro"], BENCHMARKS["mathvista"]
    where = copies_in(copies, pro)
    with pytest.raises(ValueError, match="mmmu_pro: nothing says where its part vision is; it has standard, vision"):
        read(pro, {"standard": where["standard"]}, 5)
    with pytest.raises(ValueError, match="mathvista has no part 'test'; it has testmini"):
        read(vista, {"test": "x"}, 5)
    with pytest.raises(ValueError, match="limit is 0; it must be at least 1"):
        read(vista, {}, 0)
    assert len(read(vista, {"": copies_in(copies, vista)["testmini"]}, 5)) == 5
    with pytest.raises(ValueError, match=r"no mathvision_testmini \(.parquet, .json, .jsonl, .tsv or a folder\)"):
        copies_in(copies, BENCHMARKS["mathvision_testmini"])
    assert copies_in(copies, BENCHMARKS["mathverse_vision_only"])["testmini"].endswith("mathverse.json")


def test_the_benchmarks_convert_as_any_other_source(copies, tmp_path):
    for name in ("mathvista", "mmmu_pro_vision", "hallusionbench"):
        file = next(copies.glob(f"{name}.*"))
        assert convert([name, str(tmp_path / name), "--data", f"{'image'}={file}", "--max-rejected", "1"]) == 0
        assert len(list(read_samples(tmp_path / name / "image.parquet"))) > 5
