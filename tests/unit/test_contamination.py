"""Which questions are found in training data: by the image, nearly, by the words; and what is left alone."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from avar_rl.evaluation.benchmarks.reporting.contamination import Search, check, question_text, training_rows, words
from data_tools.formats.rows import chat_row, rl_row, write_rows
from data_tools.formats.sample import SampleWriter
from tests.unit.benchmark_folder import vista

ASKED = "In the figure, what is the measure of angle ABC in degrees?"  # 12 words


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def scene(seed: int) -> Image.Image:
    """A picture with enough edges for a fingerprint."""
    numbers = np.random.default_rng(seed)
    image = Image.new("RGB", (160, 120), "white")
    for _ in range(12):
        x, y = numbers.integers(0, (140, 100))
        ImageDraw.Draw(image).rectangle((x, y, x + 18, y + 18), fill=tuple(int(c) for c in numbers.integers(0, 200, 3)))
    return image


def question(id_: str, text: str, image: Image.Image):
    made = vista(1)
    return replace(made, id=id_, question=text, images=(encoded(image),), extra=made.extra | {"question": text})


def searched(tmp_path: Path, *rows) -> Search:
    write_rows(list(rows), tmp_path / "train.parquet")
    search = Search()
    search.add(question("q1", ASKED, scene(1)))
    search.add(question("q2", "Find x.", scene(2)))
    search.add(question("q3", "How many of the bars in this chart are taller than the red one?", scene(1)))
    check(search, [tmp_path / "train.parquet"])
    return search


def row(text: str, image: Image.Image | bytes, id_: str = "t1"):
    data = image if isinstance(image, bytes) else encoded(image)
    return rl_row(id=id_, source="train", question=text, gold="1", images=[data], index=0, split="train")


def test_the_same_pixels_in_another_file_format_are_the_same_image(tmp_path):
    stored = encoded(scene(1), "WEBP", lossless=True)
    assert stored != encoded(scene(1))
    search = searched(tmp_path, row("Something else entirely.", stored))
    assert search.found == {
        "image": {"q1": "train.parquet, row t1", "q3": "train.parquet, row t1"},  # both show it
        "near_image": {},
        "text": {},
    }
    assert (search.rows, search.unreadable) == (1, 0)


def test_a_recompressed_or_smaller_copy_is_near_and_another_picture_is_not(tmp_path):
    copies = [
        row("Else.", encoded(scene(1), "JPEG", quality=80), "jpeg"),
        row("Else.", scene(2).resize((320, 240)), "large"),
    ]
    search = searched(tmp_path, *copies, row("Else.", scene(3), "other"))
    assert search.found["image"] == {}
    assert search.found["near_image"] == {
        "q1": "train.parquet, row jpeg",
        "q3": "train.parquet, row jpeg",
        "q2": "train.parquet, row large",
    }


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (ASKED, True),
        ("<image>\nHint: think.\nQuestion: in the figure what is  the measure of angle abc, in degrees\n(A) 1", True),
        ("In the figure, what is the measure of angle ABD in degrees?", False),
        ("In the figure, what is the measure of angle ABC?", False),  # not all of its words
        ("Find x.", False),  # under eight words: found anywhere, and so not looked for
    ],
)
def test_a_text_is_found_where_all_its_words_stand_together(tmp_path, said, found):
    search = searched(tmp_path, row(said, scene(9)))
    assert search.found["text"] == ({"q1": "train.parquet, row t1"} if found else {})


def test_the_response_of_a_chat_row_is_not_what_it_asks(tmp_path):
    asked, answered = (
        chat_row(id="c", question=ASKED, response="<answer>1</answer>"),
        chat_row(id="d", question="What?", response=ASKED),
    )
    assert searched(tmp_path, asked).found["text"] == {"q1": "train.parquet, row c"}
    assert searched(tmp_path, answered).found["text"] == {}


def test_converted_samples_and_their_image_files_are_read(tmp_path):
    (tmp_path / "one.png").write_bytes(encoded(scene(1)))
    with SampleWriter(tmp_path / "samples.parquet") as writer:
        writer.add(replace(vista(7), id="s", question="Which?", images=("one.png",)))
    search = Search()
    search.add(question("q1", ASKED, scene(1)))
    check(search, [tmp_path / "samples.parquet"])
    assert search.found["image"] == {"q1": "samples.parquet, row s"}


def test_an_unreadable_training_image_is_counted_and_does_not_stop_the_search(tmp_path):
    search = searched(tmp_path, row("Else.", b"no image", "bad"), row("Else.", scene(2), "good"))
    assert search.unreadable == 1 and search.found["image"] == {"q2": "train.parquet, row good"}


def test_a_file_of_another_format_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    with pytest.raises(ValueError, match="missing columns"):
        list(training_rows(tmp_path / "text.parquet"))
    with pytest.raises(ValueError, match="no such data file"):
        check(Search(), [tmp_path / "none.parquet"])


def test_question_text_is_the_benchmarks_own_without_options():
    made = vista(1)
    assert question_text(made) == "What colour has circle 1?"
    whole = "What is it?\nOptions: A: one, B: two"
    assert question_text(replace(made, extra={"question": whole})) == "What is it?"
    assert question_text(replace(made, extra={"question": "", "question_for_eval": "All of it"})) == "All of it"


def test_words_are_compared_without_marks_case_and_punctuation():
    assert words("<image 1>In <image>the Figure: x=2.5°, É") == ["in", "the", "figure", "x", "2", "5", "é"]


def test_long_runs_are_searched_in_linear_time():
    search = Search()
    search.add(question("q", "a " * 50, scene(1)))
    assert question_text(replace(vista(1), extra={"question": "\n" * 100_000})) == "\n" * 100_000
    assert words("a " * 50_000)[:2] == ["a", "a"]
