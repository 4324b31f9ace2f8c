"""`data_tools.inspect`: what it counts, which golds it finds useless, and what its contact sheet shows."""

import io
import re

import pytest
from PIL import Image

from data_tools.formats.sample import Sample, SampleWriter
from data_tools.inspect import contact_sheet, inspect, main, quantiles


def png(width: int, height: int = 30) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def file_of(path, *samples: Sample):
    with SampleWriter(path) as writer:
        for sample in samples:
            writer.add(sample)
    return path


def sample(i: int, **changes) -> Sample:
    plain = {"question": "What?", "gold": "7", "gold_kind": "number", "images": (png(40 + i),)}
    return Sample(**{"id": f"s-{i}", "source": "s"} | plain | changes)


def test_counts_and_measures(tmp_path, capsys):
    choice = {"options": ("a", "b"), "gold": "B", "gold_kind": "choice", "images": ()}
    path = file_of(tmp_path / "a.parquet", sample(0), sample(1), sample(2, **choice, response="<think>"))
    findings = inspect(path, None, 0, 0, None)
    assert findings.rows == 3 and findings.faults == []
    assert findings.counts["answer"] == {"number": 2, "choice": 1}
    assert findings.counts["images a row"] == {"1": 2, "0": 1} and findings.counts["options"] == {"0": 2, "2": 1}
    assert findings.measures["image width"] == [40, 41] and findings.measures["image height"] == [30, 30]
    assert findings.measures["question, characters"] == [5, 5, 17]  # "What?\n(A) a\n(B) b"
    assert main([str(path)]) == 0
    assert "number: 2, choice: 1" in capsys.readouterr().out


def test_lengths_are_the_processors(tiny_world, tmp_path):
    from data_tools.formats.rows import read_rows
    from data_tools.validate import load_processor, structured_turns

    row = read_rows(tiny_world / "data" / "test.parquet")[0]
    image = row["images"][0]["bytes"]
    question = row["extra_info"]["question"]
    path = file_of(tmp_path / "a.parquet", sample(0, question=question, images=(image,), response="red"))
    findings = inspect(path, str(tiny_world / "base"), 0, 0, None)
    processor = load_processor(tiny_world / "base")
    text = processor.apply_chat_template(
        structured_turns([{"role": "user", "content": f"<image>{question}"}]),
        add_generation_prompt=True,
        tokenize=False,
    )
    inputs = processor(text=[text], images=[Image.open(io.BytesIO(image))], return_tensors="pt")
    assert findings.measures["prompt, tokens"] == [inputs["input_ids"].shape[1]]
    assert findings.measures["response, tokens"] == [len(processor.tokenizer("red")["input_ids"])]


def test_faults_name_the_row_and_make_the_status_1(tmp_path, capsys):
    path = file_of(
        tmp_path / "a.parquet",
        sample(0, gold="a + * b", gold_kind="expression"),
        sample(1, images=("images/none.png",)),
        sample(2, images=(b"broken",)),
        sample(3),
    )
    assert main([str(path)]) == 1
    printed = capsys.readouterr().out
    assert "s-0: the gold answer 'a + *" in printed and "s-1: image: no such image file" in printed
    assert "s-2: image: cannot be read" in printed and "3 faults" in printed


def test_a_gold_that_is_not_equal_to_itself_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr("rewards.shipped.accuracy.accuracy", lambda response, gold: 0.0)
    findings = inspect(file_of(tmp_path / "a.parquet", sample(0)), None, 0, 0, None)
    assert findings.faults == ["s-0: the gold answer '7' is graded 0.0 against itself"]


def test_the_contact_sheet_escapes_what_the_data_says(tmp_path):
    hostile = "<script>alert(1)</script>"
    path = file_of(tmp_path / "a.parquet", *(sample(i, question=f"{hostile} {i}") for i in range(30)))
    findings = inspect(path, None, 8, 0, None)
    page = contact_sheet(findings, "a & b")
    assert hostile not in page and page.count("&lt;script&gt;") == 8 and "<title>a &amp; b</title>" in page
    assert len(re.findall(r'<img src="data:image/jpeg;base64,[A-Za-z0-9+/=]+"', page)) == 8
    chosen = {entry["sample"].id for entry in findings.sheet}
    assert len(chosen) == 8 and not chosen <= {f"s-{i}" for i in range(8)}
    again, other = (inspect(path, None, 8, seed, None) for seed in (0, 1))
    assert {e["sample"].id for e in again.sheet} == chosen != {e["sample"].id for e in other.sheet}


def test_hashes_have_a_line_an_image(tmp_path):
    path = file_of(tmp_path / "a.parquet", sample(0, images=(png(40), png(50))), sample(1))
    assert main([str(path), "--hashes", str(tmp_path / "h.txt"), "--html", str(tmp_path / "h.html")]) == 0
    lines = (tmp_path / "h.txt").read_text().splitlines()
    assert [line[128:] for line in lines] == ["  # s-0", "  # s-0", "  # s-1"]
    assert (tmp_path / "h.html").stat().st_size > 1000


@pytest.mark.parametrize(("name", "fault"), [("none.parquet", "no such data file"), ("empty.parquet", "no samples")])
def test_mistakes(tmp_path, capsys, name, fault):
    file_of(tmp_path / "empty.parquet")
    assert main([str(tmp_path / name)]) == 2
    assert fault in capsys.readouterr().err


def test_quantiles():
    assert quantiles(range(101)) == [0, 5, 50, 95, 100]
