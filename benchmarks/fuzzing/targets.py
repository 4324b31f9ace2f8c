"""What is fuzzed: a function from bytes, which may raise nothing, and the inputs that it begins from.

Each target calls the code as its users do and lets pass only the errors that the code documents.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "tests" / "data"
BORDER = "\0"  # between the texts of one input


@dataclass(frozen=True)
class Target:
    """`call` is given an input, `seeds` gives those that the fuzzer begins from, `weight` is its part of time."""

    call: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    weight: float = 1.0


def _texts(data: bytes, count: int) -> list[str]:
    found = data.decode("utf-8", "surrogateescape").split(BORDER)
    return [*found[:count], *[""] * (count - len(found))]


def _pairs() -> Iterator[bytes]:
    for file in sorted(DATA.glob("grading_*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            options = row.get("options") or []
            yield BORDER.join(str(text) for text in (row["pred"], row["gold"], *options)).encode("utf-8", "replace")


def grade(data: bytes) -> None:
    """Prediction, gold, options: only the gold or the options may be refused."""
    from rewards.grading import check_gold
    from rewards.grading import grade as graded

    prediction, gold, *options = _texts(data, 6)
    options = [option for option in options if option]
    try:
        check_gold(gold)
    except ValueError:
        return
    graded(prediction, gold, options=options or None)


def response(data: bytes) -> None:
    """A whole response: its answer, its verdict, its format and its repetitions."""
    from rewards.grading import check_gold, extract_answer, grade_response, stated_answer
    from rewards.shipped.format import format_reward

    text, gold = _texts(data, 2)
    extract_answer(text)
    stated_answer(text)
    format_reward(text, "")
    try:
        check_gold(gold)
    except ValueError:
        return
    grade_response(text, gold)


def markup(data: bytes) -> None:
    """No markup is left in a text that was escaped."""
    from data_tools.formats.markup import escaped, markup_in

    text = data.decode("utf-8", "replace")
    for images in (False, True):
        markup_in(text, images=images)
        assert not markup_in(escaped(text, images=images), images=images)


def _markup_seeds() -> Iterator[bytes]:
    yield from (b"<image><|image_pad|>", b"<|im_start|>system\n<|im_end|>", b"<video> <audio> <|vision_start|>")


def _json_value(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return data.decode("utf-8", "surrogateescape")


def values(data: bytes) -> None:
    """A value of a column as options, answers, list and text: only ValueError."""
    from data_tools.convert.sources import values as columns

    value = _json_value(data)
    for read in (columns.options_value, columns.answers_value, columns.list_value, columns.text_value):
        try:
            read(value, "column")
        except ValueError:
            continue


def _value_seeds() -> Iterator[bytes]:
    yield from (b'["red", "blue"]', b'{"A": "red", "B": "blue"}', b"\"['a', 'b']\"", b"\"{'A': 1}\"", b"NaN", b"1e999")
    yield from (b'{"text": ["a"], "label": ["A"]}', b'"[\\"\\\\frac{1}{2}\\"]"', b"[[[1]]]", b'{"1": "a", "2": "b"}')


def row(data: bytes) -> None:
    """A row of any source: it is converted or rejected."""
    from data_tools.convert.duplicates import Duplicates
    from data_tools.convert.load import SourceRows
    from data_tools.convert.pipeline import Converter
    from data_tools.convert.sources import SOURCES
    from rewards.grading import check_gold

    sources = list(SOURCES.values())
    value = _json_value(data[1:])
    if not data or not isinstance(value, dict):
        return
    source = sources[data[0] % len(sources)]
    whole = {**dict.fromkeys(source.columns), **value}
    converter = Converter(source, "train", check_gold, workers=1, escape_markup=bool(data[0] & 128))
    outcomes = list(converter.convert(SourceRows(iter([whole]), Path("/nowhere")), Duplicates()))
    assert len(outcomes) == 1


def _row_seeds() -> Iterator[bytes]:
    from data_tools.convert.sources import SOURCES

    image = base64.b64encode(_images()[0]).decode()
    common = {
        "question": "<image> How many?",
        "problem": "Find x.",
        "answer": "B",
        "choices": ["1", "2"],
        "image": image,
    }
    common |= {"options": "['1', '2']", "images": [image], "decoded_image": image, "solution": "\\boxed{2}"}
    for place, source in enumerate(SOURCES.values()):
        row = {name: common.get(name, "1") for name in source.columns}
        yield bytes([place]) + json.dumps(row | {"answer": "2"}).encode()
        yield bytes([place]) + json.dumps(row).encode()


def image(data: bytes) -> None:
    """An encoded image: a picture, or ValueError."""
    from data_tools.convert.images import read_picture

    try:
        read_picture(data, 1_000_000)
    except ValueError:
        return


def _images() -> list[bytes]:
    from PIL import Image

    files = []
    for form in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "ICO", "PPM", "AVIF"):
        file = io.BytesIO()
        Image.new("RGB", (24, 16), "red").save(file, form)
        files.append(file.getvalue())
    return files


def table(data: bytes) -> None:
    """A file of rows, JSON lines, JSON or parquet by its first byte: read, or ValueError."""
    import tempfile

    from data_tools.convert.load import open_rows
    from data_tools.convert.sources import find

    suffix = (".jsonl", ".json", ".parquet")[data[0] % 3] if data else ".json"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{suffix}"
        path.write_bytes(data[1:])
        try:
            for _ in open_rows(find("columns"), str(path), "train").rows:
                pass
        except ValueError:
            return


def benchmark(data: bytes) -> None:
    """A file of a benchmark, TSV or JSON lines, its source and the format by the first byte: read, or ValueError."""
    import tempfile

    from data_tools.convert.sources import SOURCES
    from data_tools.convert.strict import BenchmarkPart, read_part

    sources = [source for source in SOURCES.values() if source.tsv]
    place = data[0] if data else 0
    source = sources[place % len(sources)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{'.jsonl' if place & 128 else '.tsv'}"
        path.write_bytes(data[1:])
        try:
            read_part(BenchmarkPart("part", source.name, source.splits[0], 1), str(path), "fuzzed", limit=100)
        except ValueError:
            return


def _benchmark_seeds() -> Iterator[bytes]:
    image = base64.b64encode(_images()[0]).decode()
    lettered = "index\timage\tquestion\tA\tB\tanswer\tcategory\tl2-category\n"
    lettered += f"VD_a_1_0_1_2\t{image}\t<image 1>?\tx\ty\tB\tc\td\nVD_a_1_0_1_3\tVD_a_1_0_1_2\t?\t\t\tYes\tc\td\n"
    listed = "index\timage\tquestion\tchoices\tanswer\tquestion_type\tanswer_type\tproblem_version\tmetadata\n"
    listed += f"1\t['{image}']\t\"Hint: a\nQuestion: b\"\t['x', 'y']\ty\tfree_form\tfloat\tText Lite\t{{'a': 1}}\n"
    for place in range(8):
        yield from (bytes([place]) + file.encode() for file in (lettered, listed))


def _table_seeds() -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"question": "How many?", "answer": "2", "images": None}, {"question": "Which?", "answer": 2.5}]
    yield b"\0" + "\n".join(map(json.dumps, rows)).encode()
    yield b"\1" + json.dumps(rows).encode()
    file = io.BytesIO()
    pq.write_table(pa.table({"question": ["a", "b"], "answer": ["1", "2"], "images": [[b"x"], None]}), file)
    yield b"\2" + file.getvalue()


def reply(data: bytes) -> None:
    """What a teacher's or judge's server sends: a reply, or one of the client's own errors."""
    from avar_rl.runtime.chat_replies import NoReplyError, read_reply, trouble

    try:
        read_reply(data)
    except NoReplyError:
        pass
    for status in (400, 429, 500):
        assert isinstance(trouble(status, data, {"retry-after": data[:20].decode("latin-1")}), NoReplyError)


def _reply_seeds() -> Iterator[bytes]:
    message = {"role": "assistant", "content": [{"type": "text", "text": "4"}], "reasoning_content": "2+2"}
    yield json.dumps(
        {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    ).encode()
    yield json.dumps({"error": {"message": "quota", "type": "insufficient_quota", "code": 429}}).encode()
    yield json.dumps({"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}).encode()


TARGETS: dict[str, Target] = {
    "grade": Target(grade, _pairs, 4),
    "response": Target(response, _pairs, 4),
    "markup": Target(markup, _markup_seeds, 0.25),
    "values": Target(values, _value_seeds, 2),
    "row": Target(row, _row_seeds, 2),
    "image": Target(image, lambda: iter(_images())),
    "table": Target(table, _table_seeds),
    "benchmark": Target(benchmark, _benchmark_seeds),
    "reply": Target(reply, _reply_seeds, 0.5),
}
