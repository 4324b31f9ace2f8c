"""`data_tools.inspect`: what it counts, which golds it finds useless, and what its contact sheet shows."""

import base64
import io
import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_tools.formats.rows import chat_row, rl_row, write_rows
from data_tools.formats.sample import DataSample, SampleWriter
from data_tools.inspect import contact_sheet, inspect, main, quantiles


def png(width: int, height: int = 30) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def file_of(path, *samples: DataSample):
    with SampleWriter(path) as writer:
        for sample in samples:
            writer.add(sample)
    return path


def sample(i: int, **changes: Any) -> DataSample:
    plain: dict[str, Any] = {"question": "What?", "gold": "7", "gold_kind": "number", "images": (png(40 + i),)}
    return DataSample(id=f"s-{i}", source="s", **plain | changes)


def rl(i: int, **changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"question": f"How many? {i}", "gold": "7", "images": (png(40 + i),), "kind": "count"}
    return rl_row(**{"id": f"r-{i}", "source": "s", "index": i, "split": "test"} | plain | changes)


def chat(i: int, **changes: Any) -> dict[str, Any]:
    response = "<think>Looking.</think><answer>7</answer>"
    return chat_row(**{"id": f"c-{i}", "question": "How many?", "response": response, "images": (png(40),)} | changes)


def test_counts_and_measures(tmp_path, capsys):
    choice = {"options": ("a", "b"), "gold": "B", "gold_kind": "choice", "images": ()}
    path = file_of(tmp_path / "a.parquet", sample(0), sample(1), sample(2, **choice, response="<think>"))
    findings = inspect(path, None, 0, 0, None)
    assert findings.rows == 3 and findings.faults == []
    assert findings.counts["gold kind"] == {"number": 2, "choice": 1}
    assert findings.counts["images per row"] == {"1": 2, "0": 1} and findings.counts["options"] == {"0": 2, "2": 1}
    assert findings.measures["image width"] == [40, 41] and findings.measures["image height"] == [30, 30]
    assert findings.measures["question, characters"] == [5, 5, 17]  # "What?\n(A) a\n(B) b"
    assert main([str(path)]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["│", "gold", "kind", "│", "number", "│", "2", "│"] in printed
    assert ["│", "s-2", "│", "What?", "(A)", "a", "(B)", "b", "│", "B", "│"] in printed


def test_lengths_are_the_processors(tiny_world, tmp_path):
    from avar_rl.runtime.files import read_parquet
    from data_tools.validate import load_processor, structured_turns

    row = read_parquet(tiny_world / "data" / "test.parquet")[0]
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
    assert "s-2: image: an image cannot be read" in printed and "3 faults" in printed


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
    chosen = {entry.row.id for entry in findings.sheet}
    assert len(chosen) == 8 and not chosen <= {f"s-{i}" for i in range(8)}
    again, other = (inspect(path, None, 8, seed, None) for seed in (0, 1))
    assert {e.row.id for e in again.sheet} == chosen != {e.row.id for e in other.sheet}


def test_evidence_boxes_are_counted_checked_and_drawn(tmp_path, capsys):
    frame = (((10.0, 5.0, 30.0, 25.0),),)
    bad = (((10.0, 5.0, 30.0, 45.0), (9.0, 9.0, 3.0, 3.0)),)
    write_rows([rl(0, evidence=frame), rl(1), rl(2, evidence=bad)], tmp_path / "rl.parquet")
    findings = inspect(tmp_path / "rl.parquet", None, 3, 0, None)
    assert findings.counts["evidence boxes"] == {"1": 1, "2": 1}
    assert [fault.split(",")[0] for fault in findings.faults] == [
        "r-2: evidence box 0 of image 0",
        "r-2: evidence box 1 of image 0",
    ]
    boxed, plain, faulty = (decoded(entry.thumbnails[0]) for entry in sorted(findings.sheet, key=lambda e: e.index))
    assert boxed.size == (40, 30)
    on_edge, inside, outside = (boxed.getpixel(place) for place in ((10, 15), (20, 15), (5, 15)))
    assert on_edge[2] > 128 > max(inside[2], outside[2])  # a magenta frame on a red image, JPEG aside
    assert all(shown.getextrema()[2][1] < 128 for shown in (plain, faulty))  # faulty boxes are named, not drawn
    path = file_of(tmp_path / "a.parquet", sample(0, evidence=frame), sample(1, evidence=bad))
    assert main([str(path), "--html", str(tmp_path / "a.html")]) == 1
    assert "s-1: evidence box 0 of image 0, [10, 5, 30, 45], reaches outside" in capsys.readouterr().out
    write_rows([{**rl(0), "extra_info": {**rl(0)["extra_info"], "evidence": None}}], tmp_path / "none.parquet")
    assert inspect(tmp_path / "none.parquet", None, 1, 0, None).faults == []


def decoded(uri: str) -> Any:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_hashes_have_a_line_an_image(tmp_path):
    path = file_of(tmp_path / "a.parquet", sample(0, images=(png(40), png(50))), sample(1))
    assert main([str(path), "--hashes", str(tmp_path / "h.txt"), "--html", str(tmp_path / "h.html")]) == 0
    lines = (tmp_path / "h.txt").read_text().splitlines()
    assert [line[128:] for line in lines] == ["  # s-0", "  # s-0", "  # s-1"]
    assert (tmp_path / "h.html").stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "fault"),
    [("none.parquet", "no such data file"), ("empty.parquet", "holds no rows"), ("text.parquet", "not a readable")],
)
def test_mistakes(tmp_path, capsys, name, fault):
    file_of(tmp_path / "empty.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    assert main([str(tmp_path / name)]) == 2
    printed = capsys.readouterr()
    assert fault in printed.err and printed.err.splitlines()[-1].startswith("avar inspect: ") and printed.out == ""


def test_a_file_of_other_columns_is_refused_with_what_each_format_needs(tmp_path, capsys):
    pq.write_table(pa.table({"prompt": ["a"], "answer": ["b"]}), tmp_path / "other.parquet")
    assert main([str(tmp_path / "other.parquet")]) == 2
    printed = capsys.readouterr().err
    assert (
        "missing columns data_source, images, reward_model; it has prompt, answer. RL rows need data_source" in printed
    )
    assert "chat rows need messages, images" in printed and "samples, as `python -m data_tools.convert`" in printed
    assert main([str(file_of(tmp_path / "a.parquet", sample(0))), "--rows", "-1"]) == 2
    assert "--rows is -1; it must be at least 0" in capsys.readouterr().err


def test_rl_rows_are_counted_measured_and_shown(tmp_path, capsys):
    options = {"question": "Which? A) red B) blue", "gold": "B", "options": ("red", "blue"), "kind": "", "images": ()}
    again = {"question": "How many? 0", "images": (png(40),)}
    rows = [rl(0), rl(1, gold_kind="integer"), rl(2, **options), rl(3, **again)]
    write_rows(rows, tmp_path / "rl.parquet")
    findings = inspect(tmp_path / "rl.parquet", None, 4, 0, None)
    assert findings.counts["source"] == {"s": 4} and findings.counts["kind"] == {"count": 3}
    assert findings.counts["gold kind"] == {"number": 2, "integer": 1, "choice": 1}  # as the row says, else by its form
    assert findings.counts["options"] == {"0": 3, "2": 1} and findings.counts["response"] == {"no": 4}
    assert findings.measures["question, characters"] == [11, 11, 21, 11]  # "How many? 0", "Which? A) red B) blue"
    assert findings.measures["image width"] == [40, 41, 40]
    assert findings.repeats == ["r-3"] and findings.faults == []
    assert "Which? A) red B) blue" in contact_sheet(findings, "rl")
    assert main([str(tmp_path / "rl.parquet")]) == 0
    assert "1 rows repeat an earlier one: r-3\n" in capsys.readouterr().out


def test_other_right_answers_are_checked_counted_and_shown(tmp_path, capsys):
    write_rows([rl(0), rl(1, other_golds=["two", "2.0"]), rl(2, other_golds=["1+"])], tmp_path / "rl.parquet")
    findings = inspect(tmp_path / "rl.parquet", None, 3, 0, None)
    assert findings.counts["right answers"] == {"1": 1, "3": 1}
    assert len(findings.faults) == 1 and "'1+' in extra_info.other_golds cannot be scored" in findings.faults[0]
    file_of(tmp_path / "a.parquet", sample(0, other_golds=("two",)), sample(1, other_golds=("1+",)))
    found = inspect(tmp_path / "a.parquet", None, 2, 0, None)
    assert found.counts["right answers"] == {"2": 2} and len(found.faults) == 1 and "'1+'" in found.faults[0]
    assert main([str(tmp_path / "a.parquet")]) == 1 and " | two" in capsys.readouterr().out


def test_chat_rows_are_counted_measured_and_shown(tmp_path):
    other = "<think>Glancing.</think><answer>7</answer>"
    write_rows([chat(0), chat(1), chat(2, response=other)], tmp_path / "chat.parquet")
    findings = inspect(tmp_path / "chat.parquet", None, 3, 0, None)
    assert findings.counts["gold kind"] == {"number": 3} and findings.counts["response"] == {"yes": 3}
    assert "source" not in findings.counts and "kind" not in findings.counts
    assert findings.measures["question, characters"] == [9, 9, 9]
    assert findings.repeats == ["c-1"]  # c-2 asks the same and has another response
    assert "Glancing." in contact_sheet(findings, "chat")


def test_a_row_with_its_image_stored_anew_repeats_nearly(tmp_path, capsys):
    picture = Image.linear_gradient("L").resize((200, 100))  # lines across, so that the hash has something to hold
    picture.paste(0, (20, 20, 60, 80))
    picture.paste(255, (100, 10, 150, 90))
    files = [io.BytesIO(), io.BytesIO()]
    picture.save(files[0], "PNG")
    picture.save(files[1], "JPEG", quality=95)
    rows = [rl(i, question="How many?", images=(file.getvalue(),)) for i, file in enumerate(files)]
    write_rows([*rows, rl(2, question="How many?")], tmp_path / "rl.parquet")
    assert main([str(tmp_path / "rl.parquet")]) == 0
    assert "1 rows repeat an earlier one with nearly its images: r-1\n" in capsys.readouterr().out


def test_faults_of_training_rows_are_named(tmp_path, capsys):
    rows = [rl(0, gold="a + * b"), rl(1, images=(b"broken",)), rl(2, question="<image> and <image>?"), rl(3)]
    rows[3]["images"] = [{"bytes": None}]
    write_rows(rows, tmp_path / "rl.parquet")
    assert main([str(tmp_path / "rl.parquet")]) == 1
    printed = capsys.readouterr().out
    assert "r-0: the gold answer 'a + * b' in reward_model.ground_truth cannot be scored" in printed
    assert "r-1: image: an image cannot be read" in printed
    assert "r-2: `<image>` stands 2 times in `prompt`, but the row has 1 images" in printed
    assert "r-3: image: an image is neither bytes nor the path of a file" in printed and "4 faults" in printed
    write_rows([chat(0, response="7"), chat(1)], tmp_path / "chat.parquet")
    assert main([str(tmp_path / "chat.parquet")]) == 1
    assert "c-0: no gold answer in <answer></answer> of the last assistant turn" in capsys.readouterr().out


def test_no_number_is_lost_at_80_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    long = "How many of the many things that this very long question speaks of are there in the picture? " * 3
    rows = [rl(i, question=f"{long}{i}", source="a source with a name as long as a line " * 3) for i in range(3)]
    write_rows(rows, tmp_path / "rl.parquet")
    assert main([str(tmp_path / "rl.parquet")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (sources,) = [line for line in lines if "a source with a name" in line]
    assert sources.split()[-2] == "3"
    (widths,) = [line for line in lines if "image width" in line]
    assert widths.split()[3:] == ["│", "40", "│", "40", "│", "41", "│", "41", "│", "42", "│"]


def test_rows_of_the_miniature_are_measured_by_its_processor(tiny_world):
    data, base = tiny_world / "data", str(tiny_world / "base")
    for name in ("test", "sft_val"):
        findings = inspect(data / f"{name}.parquet", base, 0, 0, None)
        assert findings.faults == [] and len(findings.measures["prompt, tokens"]) == findings.rows
    assert len(findings.measures["response, tokens"]) == 128


def test_quantiles():
    assert quantiles(range(101)) == [0, 5, 50, 95, 100]


def test_golds_that_only_their_own_text_matches_are_counted_and_no_fault(tmp_path, capsys):
    odd = sample(1, gold="AB // CD ; EF // GH", gold_kind="expression")
    path = file_of(tmp_path / "a.parquet", sample(0), odd, sample(2, gold="red", gold_kind="words"))
    assert inspect(path, None, 0, 0, None).text_only == [("s-1", "AB // CD ; EF // GH")]
    assert main([str(path)]) == 0
    line = "1 of 3 golds (33.3%) match only their own text, such as 'AB // CD ; EF // GH' (id s-1)"
    assert line in capsys.readouterr().out
