"""Each source on a small file made here in the data set's documented schema: no file of the real sets is here."""

import io
import json

import datasets
import pytest
from PIL import Image, ImageDraw

from data_tools.convert.load import open_rows
from data_tools.convert.sources import SOURCES, find
from data_tools.convert.sources.source import Draft

IMAGE, TEXT, TEXTS = datasets.Image(), datasets.Value("string"), datasets.List(datasets.Value("string"))
WHOLE, REAL = datasets.Value("int64"), datasets.Value("float64")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def png(seed: int = 0) -> bytes:
    image = Image.new("RGB", (60, 40), "white")
    ImageDraw.Draw(image).line([(5, 5), (50, 10 + 7 * seed), (20 + seed, 35)], fill="black", width=2)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def stored(seed: int = 0) -> dict:
    return {"bytes": png(seed), "path": None}


def drafts(name: str, data, split: str = "train") -> list[Draft]:
    return [SOURCES[name].draft(row) for row in open_rows(SOURCES[name], str(data), split).rows]


def parquet(path, rows: list[dict], **features) -> str:
    datasets.Dataset.from_list(rows, features=datasets.Features(features)).to_parquet(path)
    return str(path)


def test_geometry3k_from_a_folder_with_splits(tmp_path):
    for split, answer in (("train", "12"), ("test", r"2 \sqrt{221}")):
        row = {"images": [stored()], "problem": "<image>Find x.", "answer": answer}
        parquet(
            tmp_path / f"{split}-00000-of-00001.parquet",
            [row],
            images=datasets.List(IMAGE),
            problem=TEXT,
            answer=TEXT,
        )
    (draft,) = drafts("geometry3k", tmp_path, "test")
    assert (draft.question, draft.gold) == ("<image>Find x.", r"2 \sqrt{221}")
    assert [image["bytes"] for image in draft.images] == [png()]


def test_r1_sharevl_with_a_marker_too_many(tmp_path):
    rows = [
        {"idx": 7, "images": [stored()], "problem": f"{marks}Which?\nA. 1\nB. 2", "answer": "B", "new_questions": ["x"]}
        for marks in ("<image>", "<image><image>")
    ]
    path = parquet(
        tmp_path / "a.parquet",
        rows,
        idx=WHOLE,
        images=datasets.List(IMAGE),
        problem=TEXT,
        answer=TEXT,
        new_questions=TEXTS,
    )
    first, second = drafts("r1_sharevl", path)
    assert (first.question, second.question) == ("<image>Which?\nA. 1\nB. 2", "Which?\nA. 1\nB. 2")
    assert (first.gold, first.extra) == ("B", {"idx": 7})


M3COT = {
    **dict.fromkeys(("id", "category", "image_id", "question", "context", "answer", "rationale", "split"), TEXT),
    **{"choices": TEXTS, "image": IMAGE, "domain": TEXT, "topic": TEXT},
}


def test_m3cot(tmp_path):
    row = dict.fromkeys(M3COT, "") | {
        "id": "science-1",
        "question": "Which force?",
        "choices": ["push", "pull"],
        "context": "A cart.",
        "answer": "B",
        "image": stored(),
        "domain": "science",
    }
    path = parquet(tmp_path / "a.parquet", [row, row | {"image": None}], **M3COT)
    rows = list(open_rows(SOURCES["m3cot"], path, "train").rows)
    draft = SOURCES["m3cot"].draft(rows[0])
    assert (draft.question, draft.options, draft.gold) == ("A cart.\nWhich force?", ["push", "pull"], "B")
    assert draft.extra == {"id": "science-1", "domain": "science"}
    with pytest.raises(ValueError, match="column image is empty"):
        SOURCES["m3cot"].draft(rows[1])


def test_algopuzzlevqa_from_its_arrow_file(tmp_path):
    row = {"image": stored(), "question": "How many?", "options": ["7", "4", "9"], "answer": "4", "solution": "Count."}
    data = datasets.Dataset.from_list(
        [row, row | {"answer": "5"}],
        features=datasets.Features(image=IMAGE, question=TEXT, options=TEXTS, answer=TEXT, solution=TEXT),
    )
    data.save_to_disk(tmp_path / "saved")
    (path,) = (tmp_path / "saved").glob("*.arrow")
    rows = list(open_rows(SOURCES["algopuzzlevqa"], str(path), "data").rows)
    draft = SOURCES["algopuzzlevqa"].draft(rows[0])
    assert (draft.gold, draft.options, draft.extra) == ("B", ["7", "4", "9"], {"solution": "Count."})
    with pytest.raises(ValueError, match=r"the answer '5' is none of the options \['7', '4', '9'\]"):
        SOURCES["algopuzzlevqa"].draft(rows[1])


SOLIDGEO = {
    "solution": [],
    "answer_type": "single-step",
    "problem_type": ["Spatial Metric Relations"],
    "complexity_level": "Level 1",
    "source": "made here",
}


def test_solidgeo_from_its_release_file(tmp_path):
    rows = [
        {"question": "Find r.\n<ImageHere>", "choices": [], "image": ["images\\1.jpg"], "answer": "$r=5$", "qa_id": 1},
        {
            "question": "How high? <image1> A. 1\n B. 2\n",
            "choices": ["1", "2"],
            "image": ["images\\2.jpg"],
            "answer": "B",
            "qa_id": 2,
        },
        {
            "question": "Which net? <ImageHere> A. <ImageHere> ##",
            "choices": [],
            "image": ["images\\3.jpg"],
            "answer": "$\\mathrm{C}$\n\n[Analysis] It folds.",
            "answer_type": "choice",
            "qa_id": 3,
        },
        {"question": "", "choices": [], "image": ["images\\4.jpg"], "answer": "Volume $=24$", "qa_id": 4},
    ]
    path = tmp_path / "SolidGeo.json"
    path.write_text(json.dumps({str(i): SOLIDGEO | row for i, row in enumerate(rows)}))
    equation, choice, net, drawn = drafts("solidgeo", path)
    assert (equation.question, equation.gold, equation.images) == ("Find r.\n<image>", "5", ["images/1.jpg"])
    assert (choice.question, choice.options, choice.gold) == ("How high? <image>", ["1", "2"], "B")
    assert (net.question, net.gold) == ("Which net?  A.", "C")  # two markers, one image: it comes first
    assert (drawn.question, drawn.gold) == ("Answer the question in the image.", "24")
    assert equation.extra["qa_id"] == 1 and equation.extra["problem_type"] == ["Spatial Metric Relations"]


def test_mmk12(tmp_path):
    row = {"id": "u-1", "question": "<image> Find the area.", "answer": "78.5", "subject": "math", "image": stored()}
    path = parquet(tmp_path / "a.parquet", [row], id=TEXT, question=TEXT, answer=TEXT, subject=TEXT, image=IMAGE)
    (draft,) = drafts("mmk12", path)
    assert (draft.question, draft.gold) == ("<image> Find the area.", "78.5")
    assert draft.extra == {"id": "u-1", "subject": "math"}


def test_virl39k_with_several_image_paths(tmp_path):
    row = {
        "question": "<image><image> Which diagram is symmetric?",
        "answer": r"\boxed{A}",
        "PassRate_32BTrained": 0.5,
        "PassRate_7BBase": -1.0,
        "category": "Spatial",
        "source": "made here",
        "qid": "q-1",
        "image": ["images/a.png", "images/b.png"],
    }
    kinds = dict.fromkeys(row, TEXT) | {"PassRate_32BTrained": REAL, "PassRate_7BBase": REAL, "image": TEXTS}
    path = parquet(tmp_path / "a.parquet", [row, row | {"answer": "A"}], **kinds)
    opened = open_rows(SOURCES["virl39k"], path, "train")
    rows = list(opened.rows)
    draft = SOURCES["virl39k"].draft(rows[0])
    assert opened.folder == tmp_path
    assert (draft.gold, draft.images) == ("A", ["images/a.png", "images/b.png"])
    assert draft.extra["PassRate_7BBase"] == -1.0
    with pytest.raises(ValueError, match="the answer 'A' is not in"):
        SOURCES["virl39k"].draft(rows[1])


MATHVISTA = {
    "pid": TEXT,
    "question": TEXT,
    "image": TEXT,
    "decoded_image": IMAGE,
    "choices": TEXTS,
    "unit": TEXT,
    "precision": REAL,
    "answer": TEXT,
    "question_type": TEXT,
    "answer_type": TEXT,
    "metadata": {"context": TEXT, "language": TEXT},
    "query": TEXT,
}


def test_mathvista(tmp_path):
    row = dict.fromkeys(MATHVISTA) | {
        "pid": "1",
        "question": "How long is it?",
        "image": "images/1.jpg",
        "decoded_image": stored(),
        "answer": "1.2",
        "unit": "cm",
        "precision": 1.0,
        "question_type": "free_form",
        "answer_type": "float",
        "metadata": {"context": "chart", "language": "english"},
    }
    choice = {"pid": "2", "choices": ["red", "blue"], "answer": "blue", "unit": None, "question_type": "multi_choice"}
    path = parquet(
        tmp_path / "a.parquet", [row, row | choice | {"answer_type": "text"}, row | {"answer": ""}], **MATHVISTA
    )
    rows = list(open_rows(SOURCES["mathvista"], path, "testmini").rows)
    source = SOURCES["mathvista"]
    assert source.draft(rows[0]).question == "How long is it?"
    free, multiple = (source.for_training(source.draft(row)) for row in rows[:2])
    assert (free.question, free.gold) == ("How long is it? (unit: cm; decimal places: 1)", "1.2")
    assert free.images[0]["bytes"] == png() and free.extra["context"] == "chart"
    assert (multiple.question, multiple.options, multiple.gold) == ("How long is it?", ["red", "blue"], "B")
    with pytest.raises(ValueError, match="column answer is empty"):  # the hidden answers of the test split
        SOURCES["mathvista"].draft(rows[2])


def test_mathvista_json_release_has_paths(tmp_path):
    row = {"pid": "1", "question": "Why?", "image": "images/1.jpg", "choices": None, "answer": "4", "precision": None}
    path = tmp_path / "testmini.json"
    path.write_text(json.dumps({"1": row}))
    (draft,) = drafts("mathvista", path)
    assert (draft.images, draft.gold) == (["images/1.jpg"], "4")


def test_mathverse_with_a_question_in_the_image(tmp_path):
    names = ("sample_index", "problem_index", "problem_version", "question", "answer", "question_type", "query_wo")
    row = dict.fromkeys(names, "1") | {
        "problem_version": "Text Dominant",
        "question": "Angle CED is ()\nChoices:\nA:40°\nB:60°",
        "answer": "B",
        "image": stored(),
        "metadata": {"subject": "Plane Geometry"},
    }
    kinds = dict.fromkeys(names, TEXT) | {"image": IMAGE, "metadata": {"subject": TEXT}}
    drawn = row | {"problem_version": "Vision Only", "question": ""}
    path = parquet(tmp_path / "a.parquet", [row, drawn, row | {"question": ""}], **kinds)
    rows = list(open_rows(SOURCES["mathverse"], path, "testmini").rows)
    written, drawn = (SOURCES["mathverse"].draft(row) for row in rows[:2])
    assert (written.question, written.gold) == (row["question"], "B")
    assert (drawn.question, drawn.extra["problem_version"]) == ("Answer the question in the image.", "Vision Only")
    with pytest.raises(ValueError, match="column question is empty"):
        SOURCES["mathverse"].draft(rows[2])


def test_sharegpt_in_both_spellings(tmp_path):
    response = "<think>I look at it.</think><answer>B</answer>"
    human = [{"from": "human", "value": "<image>Which?"}, {"from": "gpt", "value": response}]
    openai = [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "<image>Which?"},
        {"role": "assistant", "content": r"So \boxed{3}"},
    ]
    long = [{"conversations": human + human, "images": []}, {"conversations": human[:1], "images": []}]
    silent = {"conversations": [human[0], {"from": "gpt", "value": "It is B."}], "images": []}
    for name, rows in (("a", [{"conversations": human, "images": ["1.png"]}, *long, silent]), ("b", [])):
        rows = rows or [{"messages": openai, "images": ["1.png"]}]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    rows = list(open_rows(SOURCES["sharegpt"], str(tmp_path / "a.json"), "train").rows)
    draft = SOURCES["sharegpt"].draft(rows[0])
    assert (draft.question, draft.gold, draft.response) == ("<image>Which?", "B", response)
    (other,) = drafts("sharegpt", tmp_path / "b.json")
    assert (other.gold, other.extra, other.images) == ("3", {"system": "Think."}, ["1.png"])
    for row, fault in zip(rows[1:], ["user, assistant, user", "the turns are user", "no <answer>"], strict=True):
        with pytest.raises(ValueError, match=fault):
            SOURCES["sharegpt"].draft(row)


def test_every_source_says_its_schema_and_unknown_ones_list_those_there_are():
    assert len(SOURCES) == 17
    for source in SOURCES.values():
        assert "Schema:" in __import__(source.draft.__module__, fromlist=["x"]).__doc__
    with pytest.raises(ValueError, match="unknown source 'geo3k'; known are geometry3k, r1_sharevl, m3cot"):
        find("geo3k")
