"""Each benchmark in its documented schema, with its traps: what a question says, where its images go, its golds, ids
and official columns. No file of the real sets is here."""

import base64
import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_tools.convert.sources import SOURCES
from data_tools.convert.sources.mmstar import split_options
from data_tools.convert.strict import BenchmarkPart, read_part


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def png(seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20 + seed, 20), (seed * 20, 10, 10)).save(file, "PNG")
    return file.getvalue()


def stored(seed: int = 0) -> dict:
    return {"bytes": png(seed), "path": None}


def base64_of(seed: int = 0) -> str:
    return base64.b64encode(png(seed)).decode()


def read(name: str, path, n: int, split: str | None = None, **keep):
    part = BenchmarkPart("p", name, split or SOURCES[name].splits[0], n, keep)
    return read_part(part, str(path), f"{name}/p")


def parquet(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def tsv(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


# MathVista

VISTA = {
    "pid": "1",
    "question": "How long is it?",
    "image": "images/1.jpg",
    "decoded_image": stored(),
    "choices": None,
    "unit": "cm",
    "precision": 1.0,
    "answer": "1.2",
    "question_type": "free_form",
    "answer_type": "float",
    "metadata": {"task": "figure question answering", "context": "chart", "skills": ["arithmetic reasoning"]},
    "query": "Hint: …\nQuestion: How long is it? (Unit: cm)",
}


def choice(pid: str, choices: list[str], answer: str) -> dict:
    text = {"question_type": "multi_choice", "answer_type": "text", "unit": None, "precision": None}
    return VISTA | text | {"pid": pid, "choices": choices, "answer": answer}


def test_mathvista_asks_as_the_file_does_and_keeps_unit_precision_and_query(tmp_path):
    rows = [
        VISTA,
        choice("2", ["red", "blue", "red"], "red"),  # stands twice: the first of them is the gold
        choice("3", ["D", "C", "B", "A"], "B"),  # letters as choices: the answer is a text, so the third one
        VISTA | {"pid": "4", "answer": "[2007, 2008]", "answer_type": "list", "precision": None, "unit": None},
    ]
    free, twice, letters, years = read("mathvista", parquet(tmp_path / "a.parquet", rows), 4)
    assert (free.question, free.gold, free.id) == ("How long is it?", "1.2", "mathvista/p/1")
    assert free.images == (png(),) and free.prompt == "<image>How long is it?"
    assert free.extra == {
        "task": "figure question answering",
        "context": "chart",
        "skills": ["arithmetic reasoning"],
        "pid": "1",
        "unit": "cm",
        "precision": 1.0,
        "question_type": "free_form",
        "answer_type": "float",
        "query": VISTA["query"],
        "answer": "1.2",
        "part": "p",
    }
    assert (twice.options, twice.gold, twice.extra["answer"]) == (("red", "blue", "red"), "A", "red")
    assert (letters.options, letters.gold) == (("D", "C", "B", "A"), "C")
    assert years.gold == "[2007, 2008]" and not years.other_golds


def test_mathvistas_tsv_has_the_question_in_its_query(tmp_path):
    hint = "Hint: Please answer the question requiring a floating-point number with two decimal places and provide."
    choose = (
        "Hint: Please answer the question and provide the correct option letter.\nQuestion: Which?\nChoices:\n(A) x"
    )
    row = {"index": "7", "image": base64_of(), "answer": "1.20", "answer_option": "", "choices": "", "task": "vqa"}
    row["question_type"] = "free_form"
    rows = [
        row | {"question": f"{hint}\nQuestion: How much? (Unit: $)", "answer_type": "float"},
        row | {"index": "8", "question": choose, "choices": "['x', 'y']", "answer": "y", "answer_type": "text"},
    ]
    free, which = read("mathvista", tsv(tmp_path / "a.tsv", rows), 2)
    assert (free.question, free.extra["precision"], free.id) == ("How much? (Unit: $)", 2.0, "mathvista/p/7")
    assert (which.question, which.options, which.gold) == ("Which?", ("x", "y"), "B")
    assert which.extra["query"] == choose and "precision" not in which.extra


@pytest.mark.parametrize("column", ["question_type", "answer_type", "precision"])
def test_mathvista_without_what_its_scoring_needs_is_an_error(tmp_path, column):
    with pytest.raises(ValueError, match=rf"row 0 \(pid 1\): column {column} is missing or empty"):
        read("mathvista", parquet(tmp_path / "a.parquet", [VISTA | {column: None}]), 1)


# MathVision

VISION = {
    "id": "5",
    "question": "Which? <image1>",
    "options": [],
    "image": "images/5.jpg",
    "decoded_image": stored(),
    "answer": "3",
    "solution": None,
    "level": 4,
    "subject": "algebra",
}


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("3", "3"),
        ("69{degrees}", r"69^\circ"),
        ("12 {inches}", "12 inches"),
        ("\frac{1}{2}", r"\frac{1}{2}"),
        ("2\frac{1}{2}", r"2\frac{1}{2}"),
        ("B", "B"),  # a letter without options
        ("{1,2}", "{1,2}"),
        (r"\sqrt{ab}{c}x", r"\sqrt{ab}{c}x"),
    ],
)
def test_mathvisions_golds_are_mended_and_kept_as_they_are(tmp_path, answer, gold):
    (sample,) = read("mathvision", parquet(tmp_path / "a.parquet", [VISION | {"answer": answer}]), 1)
    assert (sample.gold, sample.extra["answer"]) == (gold, answer)
    assert sample.options == () and "options" not in sample.extra


def test_mathvision_has_one_picture_whatever_its_text_names(tmp_path):
    five = ["1", "2", "<image2>", "4", "C"]
    rows = [
        VISION | {"question": "<image1> or <image2>? <image1>", "options": five, "answer": "C"},
        VISION | {"question": "In none?", "options": list("ABCDE"), "answer": "D", "id": "6"},
    ]
    named, bare = read("mathvision", parquet(tmp_path / "a.parquet", rows), 2)
    assert named.prompt.startswith("<image><image1> or <image2>? <image1>\n(A) 1\n") and len(named.images) == 1
    assert (named.gold, named.options) == ("C", tuple(five))  # the letter, not the text of the fifth
    assert (bare.prompt, bare.gold, bare.options) == ("<image>In none?", "D", ())
    assert bare.extra["options"] == list("ABCDE")
    assert (bare.extra["level"], bare.extra["subject"], bare.id) == (4, "algebra", "mathvision/p/6")


def test_mathvisions_tsv(tmp_path):
    row = {"index": "1", "image": base64_of(), "question": "Which?", "choices": "['a', 'b']", "answer": "B"}
    row |= {"category": "counting"}
    rows = [row, row | {"index": "2", "choices": "[]", "answer": "12"}]
    said = ("Which?\n(A) a\n(B) b", "Hint: x\nQuestion: Which?\nChoices:\n(A) a\n(B) b", "Which? (A) a (B) b")
    rows += [row | {"question": question} for question in said]
    which, free, *written = read("mathvision", tsv(tmp_path / "a.tsv", rows), 5)
    assert [sample.question for sample in written] == ["Which?"] * 3  # options are not written twice
    assert (which.options, which.gold, which.extra["subject"]) == (("a", "b"), "B", "counting")
    assert (free.options, free.gold, free.id) == ((), "12", "mathvision/p/2")


# MathVerse

VERSE = {
    "sample_index": "1",
    "problem_index": "1",
    "problem_version": "Text Dominant",
    "question": "Angle CED is ()\nChoices:\nA:40°\nB:60°",
    "image": "images/1.png",
    "answer": "B",
    "question_type": "multi-choice",
    "metadata": {"subject": "Plane Geometry", "subfield": "Angle"},
    "query_wo": "Please directly answer the question.\nQuestion: Angle CED is ()\nChoices:\nA:40°\nB:60°",
    "query_cot": "Please first conduct reasoning.",
    "question_for_eval": "Angle CED is ()\nChoices:\nA:40°\nB:60°",
}


def test_mathverse_from_its_json_with_the_question_in_the_image(tmp_path):
    only = {"sample_index": "5", "problem_version": "Vision Only", "question": "", "query_wo": "Please answer."}
    free = {"sample_index": "6", "question": "Find x.", "question_for_eval": "Find x.", "answer": "-2/5"}
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(png())
    (tmp_path / "testmini.json").write_text(json.dumps([VERSE, VERSE | only, VERSE | free]))
    text, drawn, value = read("mathverse", tmp_path / "testmini.json", 3)
    assert (text.question, text.gold, text.options) == (VERSE["question"], "B", ())
    assert text.extra["options"] == ["40°", "60°"] and text.prompt == "<image>" + VERSE["question"]
    assert (drawn.question, drawn.extra["query_wo"]) == ("Answer the question in the image.", "Please answer.")
    assert drawn.extra["question_for_eval"] == VERSE["question"] and drawn.extra["options"] == ["40°", "60°"]
    assert (value.gold, "options" in value.extra) == ("-2/5", False)
    assert text.extra["subject"] == "Plane Geometry" and drawn.id == "mathverse/p/5"
    (alone,) = read("mathverse", tmp_path / "testmini.json", 1, problem_version="Vision Only")
    assert alone == drawn


def test_mathverses_tsv_asks_the_query(tmp_path):
    row = {name: str(value) for name, value in VERSE.items() if name not in ("sample_index", "query_wo")}
    row |= {"index": "9", "image": base64_of(), "question": "Please directly answer."}
    only, text = read("mathverse", tsv(tmp_path / "a.tsv", [row | {"problem_version": "Vision Only"}, row]), 2)
    assert (only.question, only.extra["query_wo"]) == ("Answer the question in the image.", "Please directly answer.")
    assert text.question == "Please directly answer." and only.extra["subfield"] == "Angle"
    assert (only.id, text.id) == ("mathverse/p/9", "mathverse/p/row-1")  # the index stands twice


# MMMU


def mmmu(question: str, options: str, answer: str, images: int = 1, **more) -> dict:
    pictures = {f"image_{n}": stored(n) if n <= images else None for n in range(1, 8)}
    kind = "multiple-choice" if options != "[]" else "open"
    row = {
        "id": "validation_Art_Theory_3",
        "question": question,
        "options": options,
        "explanation": "",
        "answer": answer,
    }
    return row | pictures | {"question_type": kind, "topic_difficulty": "Easy", "subfield": "Shapes"} | more


def sample_of_mmmu(tmp_path, *row, name: str = "mmmu", **more):
    (sample,) = read(name, parquet(tmp_path / "a.parquet", [mmmu(*row, **more)]), 1)
    return sample


def test_mmmu_takes_images_by_column_wherever_the_text_names_them(tmp_path):
    sample = sample_of_mmmu(tmp_path, "Which is <image 3>?", "['<image 2>', 'none', '<image 1>']", "C", 3)
    assert sample.prompt == "Which is <image>?\n(A) <image>\n(B) none\n(C) <image>"
    assert sample.images == (png(3), png(2), png(1)) and sample.gold == "C"
    assert (sample.extra["subject"], sample.extra["discipline"]) == ("Art_Theory", "Art and Design")
    assert sample.id == "mmmu/p/validation_Art_Theory_3"


def test_mmmu_shows_an_image_twice_that_is_named_twice_and_first_what_is_not_named(tmp_path):
    sample = sample_of_mmmu(tmp_path, "<image 2> and <image 2>", "['a', 'b']", "A", 3)
    assert sample.prompt == "<image><image><image> and <image>\n(A) a\n(B) b"
    assert sample.images == (png(1), png(3), png(2), png(2))


def test_mmmu_has_up_to_seven_images_and_nine_options(tmp_path):
    question = " ".join(f"<image {n}>" for n in range(1, 8))
    options = [f"{n} o'clock" for n in range(9)]
    sample = sample_of_mmmu(tmp_path, question, str(options), "I", 7)
    assert sample.images == tuple(png(n) for n in range(1, 8)) and sample.options == tuple(options)
    assert sample.gold == "I"


def test_an_image_that_mmmu_names_but_lacks_is_an_error(tmp_path):
    for named in ("<image 2>", "<image 9>"):
        with pytest.raises(
            ValueError, match=rf"row 0 \(id validation_Art_Theory_3\): the text names {named}, but column"
        ):
            sample_of_mmmu(tmp_path, f"{named}?", "['a', 'b']", "A")


@pytest.mark.parametrize(
    ("answer", "gold", "others"),
    [("12", "12", ()), ("['Tampa', 'Florida']", "Tampa", ("Florida",)), ("[1, 2]", "[1, 2]", ()), ("A", "A", ())],
)
def test_mmmus_open_questions_have_a_gold_or_several(tmp_path, answer, gold, others):
    sample = sample_of_mmmu(tmp_path, "<image 1>?", "[]", answer)
    assert (sample.gold, sample.other_golds, sample.options) == (gold, others, ())
    assert sample.extra["answer"] == answer and sample.extra["question_type"] == "open"


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("['None', 'a, b', \"it's\"]", ("None", "a, b", "it's")),
        (r"['$\\frac{1}{2}$', '$\\beta$']", (r"$\frac{1}{2}$", r"$\beta$")),
        (r"['$\frac{1}{2}$', '$\beta$']", (r"$\frac{1}{2}$", r"$\beta$")),  # a backslash that is not doubled
        ("['', 'b']", ("", "b")),
        ("[1.5, 2]", ("1.5", "2")),
    ],
)
def test_mmmus_options_are_a_list_in_a_text(tmp_path, written, options):
    assert sample_of_mmmu(tmp_path, "<image 1>?", written, "B").options == options


def test_mmmus_options_that_are_no_list_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="column options is a text that is no list of options: 'a, b'"):
        sample_of_mmmu(tmp_path, "<image 1>?", "a, b", "B")
    with pytest.raises(ValueError, match="the answer 'E' is none of the options"):
        sample_of_mmmu(tmp_path, "<image 1>?", "['a', 'b']", "E")


@pytest.fixture
def three_subjects(monkeypatch) -> tuple[str, ...]:
    """MMMU's source with three of its thirty configurations, each of which takes a tenth of a second to open."""
    subjects = ("Accounting", "Art_Theory", "Music")
    monkeypatch.setitem(SOURCES, "mmmu", replace(SOURCES["mmmu"], configs=subjects))
    return subjects


def test_mmmus_configurations_are_read_in_order_from_a_copy_of_the_hubs(tmp_path, three_subjects):
    for subject in three_subjects:
        for split in ("dev", "test", "validation"):
            row = mmmu("<image 1>?", "['a', 'b']", "A", id=f"{split}_{subject}_1")
            parquet(tmp_path / subject / f"{split}-00000-of-00001.parquet", [row])
    samples = read("mmmu", tmp_path, 3)
    assert [sample.extra["subject"] for sample in samples] == list(three_subjects)
    assert samples[0].extra["id"] == "validation_Accounting_1"


def test_mmmus_configurations_are_those_that_a_readme_names(tmp_path, three_subjects):
    names = list(reversed(three_subjects))
    lines = [f"- config_name: {n}\n  data_files:\n  - split: validation\n    path: data/{n}-*" for n in names]
    (tmp_path / "README.md").write_text("---\nconfigs:\n" + "\n".join(lines) + "\n---\n")
    (tmp_path / "data").mkdir()
    for name in names:
        row = mmmu("<image 1>?", "[]", "1", id=f"validation_{name}_1")
        kinds = {key: datasets.Image() if key.startswith("image_") else datasets.Value("string") for key in row}
        data = datasets.Dataset.from_list([row], features=datasets.Features(kinds))
        data.to_parquet(tmp_path / "data" / f"{name}-0.parquet")
    samples = read("mmmu", tmp_path, 3)
    assert [sample.extra["subject"] for sample in samples] == list(three_subjects)
    assert samples[0].images == (png(1),)  # as they are stored, not decoded


def test_mmmu_has_thirty_configurations_in_six_disciplines(tmp_path):
    subjects = SOURCES["mmmu"].configs
    assert len(subjects) == 30 and subjects[:2] == ("Accounting", "Agriculture")
    rows = [mmmu("<image 1>?", "[]", "1", id=f"validation_{subject}_1") for subject in subjects]
    samples = read("mmmu", parquet(tmp_path / "merged.parquet", rows), 30)
    assert [sample.extra["subject"] for sample in samples] == list(subjects)
    assert len({sample.extra["discipline"] for sample in samples}) == 6


def test_mmmus_tsv_has_dev_too_and_a_list_of_pictures(tmp_path):
    row = {"index": "1", "image": base64_of(), "question": "<image 1>?", "A": "x", "B": "y", "C": "", "answer": "B"}
    row |= {"category": "Architecture and Engineering", "l2-category": "Tech", "split": "validation"}
    rows = [
        row,
        row | {"index": "2", "split": "dev"},
        row | {"index": "3", "image": str([base64_of(1), base64_of(2)]), "question": "<image 2>, <image 1>?"},
        row | {"index": "4", "image": "3", "A": "", "B": "", "question": "<image 1>", "answer": "['12', '13']"},
    ]
    one, two, open_ = read("mmmu", tsv(tmp_path / "a.tsv", rows), 3)
    assert (one.options, one.gold, one.images) == (("x", "y"), "B", (png(),))
    assert one.extra["subject"] == "Architecture_and_Engineering"
    assert two.images == (png(2), png(1))
    assert (open_.golds, open_.options, len(open_.images)) == (("12", "13"), (), 2)  # the pictures of row 3
    assert open_.extra["question_type"] == "open" and open_.prompt == "<image><image>"


# MMMU-Pro


def test_mmmu_pro_shuffles_options_but_not_what_their_marks_mean(tmp_path):
    options = [f"<image {n}>" for n in (4, 1, 3, 2)] + list("abcdef")
    more = {"id": "test_History_1", "subject": "History", "name": "mmmu_pro"}
    sample = sample_of_mmmu(tmp_path, "Which?", str(options), "J", 4, **more)
    assert sample.images == tuple(png(n) for n in (4, 1, 3, 2)) and len(sample.options) == 10
    assert (sample.gold, sample.extra["subject"], sample.extra["id"]) == ("J", "History", "test_History_1")


def test_mmmu_pros_vision_setting_does_not_write_what_the_image_shows(tmp_path):
    row = {"id": "test_History_1", "image": stored(), "options": str(list("abcdefghij")), "answer": "J"}
    (sample,) = read("mmmu_pro_vision", parquet(tmp_path / "a.parquet", [row | {"subject": "History"}]), 1)
    assert (sample.prompt, sample.gold) == ("<image>Answer the question in the image.", "J")
    assert sample.options == () and sample.extra["options"] == list("abcdefghij")
    assert sample.extra["discipline"] == "Humanities and Social Science"
    shown = {"index": "3", "image": base64_of(), "A": "a", "B": "b", "answer": "A", "category": "History"}
    (other,) = read("mmmu_pro_vision", tsv(tmp_path / "a.tsv", [shown]), 1)
    assert (other.id, other.extra["options"]) == ("mmmu_pro_vision/p/3", ["a", "b"])


# MMStar


@pytest.mark.parametrize(
    ("text", "stem", "options"),
    [
        ("Which?\nOptions: A: on it, B: in it, C: 3, D: 4", "Which?", ["on it", "in it", "3", "4"]),
        ("Which? Options: A: a, b, B: c", "Which?", ["a, b", "c"]),
        ("Options: are many.\nOptions: A: x, B: y", "Options: are many.", ["x", "y"]),
        ("No list", "No list", []),
        ("Which?\nOptions: A: only", "Which?\nOptions: A: only", []),
        ("Which?\nOptions: B: x, C: y", "Which?\nOptions: B: x, C: y", []),
    ],
)
def test_mmstars_options_are_taken_out_of_the_question(text, stem, options):
    assert split_options(text) == (stem, options)


STAR = {
    "index": 12,
    "question": "Which?\nOptions: A: x, B: y, C: z, D: None",
    "image": stored(),
    "answer": "D",
    "category": "math",
    "l2_category": "geometry",
    "meta_info": {"source": "MMMU", "split": "val", "image_path": "images/12.jpg"},
}


def test_mmstar(tmp_path):
    rows = [STAR, STAR | {"index": 13, "question": "Which? <image 1>\n(A) x (B) y", "answer": "B"}]
    parsed, whole = read("mmstar", parquet(tmp_path / "a.parquet", rows), 2)
    assert (parsed.question, parsed.options, parsed.gold) == ("Which?", ("x", "y", "z", "None"), "D")
    assert parsed.extra["question"] == STAR["question"] and parsed.id == "mmstar/p/12"
    assert (parsed.extra["category"], parsed.extra["l2_category"]) == ("math", "geometry")
    assert (whole.question, whole.options, whole.gold) == ("Which? <image 1>\n(A) x (B) y", (), "B")


def test_mmstars_tsv_gives_the_hubs_question(tmp_path):
    row = {"index": "12", "image": base64_of(), "question": "Which?", "A": "x", "B": "y", "C": "z", "D": "None"}
    row |= {"answer": "D", "category": "math", "l2-category": "geometry"}
    (sample,) = read("mmstar", tsv(tmp_path / "a.tsv", [row]), 1)
    assert (sample.question, sample.options) == ("Which?", ("x", "y", "z", "None"))
    assert (sample.extra["question"], sample.extra["l2_category"]) == (STAR["question"], "geometry")


# HallusionBench

HALLUSION = {
    "category": "VD",
    "subcategory": "chart",
    "visual_input": "1",
    "set_id": "0",
    "figure_id": "1",
    "question_id": "2",
    "question": "Is it larger?",
    "gt_answer": "1",
    "gt_answer_details": "It is.",
    "filename": "./VD/chart/0_1.png",
}


def test_hallusionbench_has_ids_of_set_figure_and_question(tmp_path):
    rows = [HALLUSION | {"image": stored()}, HALLUSION | {"gt_answer": "0", "question_id": "3", "image": stored()}]
    yes, no = read("hallusionbench", parquet(tmp_path / "a.parquet", rows), 2)
    assert (yes.question, yes.gold, yes.gold_kind, no.gold) == ("Is it larger?", "yes", "words", "no")
    assert {key: yes.extra[key] for key in HALLUSION if key != "question"} == {
        key: value for key, value in HALLUSION.items() if key != "question"
    }
    assert (yes.id, no.extra["answer"]) == ("hallusionbench/p/VD-chart-1-0-1-2", "0")
    with pytest.raises(ValueError, match="column gt_answer is '2'; it must be 0 or 1"):
        read("hallusionbench", parquet(tmp_path / "b.parquet", [rows[0] | {"gt_answer": "2"}]), 1)


def test_hallusionbenchs_release_has_both_splits_in_one_file(tmp_path):
    (tmp_path / "VD" / "chart").mkdir(parents=True)
    (tmp_path / "VD" / "chart" / "0_1.png").write_bytes(png(3))
    blind = HALLUSION | {"visual_input": "0", "figure_id": "0", "filename": None}
    (tmp_path / "HallusionBench.json").write_text(json.dumps([blind, HALLUSION, blind]))
    (shown,) = read("hallusionbench", tmp_path / "HallusionBench.json", 1, "image")
    assert shown.images == (png(3),)
    assert len(read("hallusionbench", tmp_path / "HallusionBench.json", 2, "non_image")) == 2


def test_hallusionbenchs_tsv_has_its_ids_in_the_index(tmp_path):
    row = {"index": "VS_map_2_0_1_3", "image": base64_of(4), "question": "Is it?", "answer": "No", "category": "VS"}
    other = row | {"index": "VS_map_2_0_1_4", "image": "VS_map_2_0_1_3", "answer": "Yes"}
    first, second = read("hallusionbench", tsv(tmp_path / "a.tsv", [row, other]), 2)
    assert (first.gold, second.gold, second.images) == ("no", "yes", (png(4),))
    ids = ("subcategory", "set_id", "figure_id", "question_id")
    assert [second.extra[key] for key in ids] == ["map", "0", "1", "4"]
    assert second.extra["gt_answer"] == "1"
    with pytest.raises(ValueError, match=r"row 1: column index is '7', not 6 ids"):
        read("hallusionbench", tsv(tmp_path / "b.tsv", [row, row | {"index": "7"}]), 2)
