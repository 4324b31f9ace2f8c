"""Values of rows as data sets have them: read as what they are, or rejected with the row and the column."""

import datetime
import json
import math
import tempfile
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.convert.__main__ import main
from data_tools.convert.load import open_rows
from data_tools.convert.sources import SOURCES
from data_tools.convert.sources.columns import Columns
from data_tools.convert.sources.source import Source, Unreadable, kept
from data_tools.convert.sources.values import answers_value, list_value, options_value, text_value
from data_tools.formats.sample import read_samples
from rewards.grading import check_gold

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  red ", "red"),
        (3, "3"),
        (-7.0, "-7"),  # a column of integers with a gap is one of floats
        (2.50, "2.5"),
        (1e-7, "0.0000001"),
        (1e22, "10000000000000000000000"),
        (Decimal("1.20"), "1.2"),
        (True, "true"),
        (None, ""),
        (NAN, ""),
        (" ", ""),
    ],
)
def test_texts(value, text):
    assert text_value(value, "c") == text


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (INF, "column c is Infinity; it must be a finite number"),
        (-INF, "column c is -Infinity"),
        (Decimal("NaN"), "column c is NaN"),
        (Decimal("1e9999"), "too many digits"),
        pytest.param(10**5000, "column c is a int", id="huge"),
        (["red"], "column c is a list; it must be a text or a number"),
        ({"A": "red"}, "column c is a dict"),
        (b"red", "column c is a bytes"),
        (datetime.date(2024, 1, 2), "column c is a date"),
        ("a\ud800b", "column c holds half a surrogate pair"),
    ],
)
def test_what_is_no_text(value, fault):
    with pytest.raises(ValueError, match=fault):
        text_value(value, "c")


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        (["red"], ["red"]),
        ([[7]], ["7"]),
        ("['red']", ["red"]),
        ('["red"]', ["red"]),
        ('["it\'s"]', ["it's"]),
        (["red", "red", None], ["red"]),
        (["red", "blue"], ["red", "blue"]),
        ("['2', '3']", ["2", "3"]),
        ("[1, 2]", ["[1, 2]"]),  # an interval
        ("[3]", ["[3]"]),
        ("{1, 2}", ["{1, 2}"]),
        (r"\{'a'\}", [r"\{'a'\}"]),
        ("5' 3\"", ["5' 3\""]),
        ([], []),
        ([None], []),
        ("[]", ["[]"]),
        (r'["\circ"]', [r"\circ"]),  # no JSON, but what Python would read
        (r"['\\frac{1}{2}']", [r"\frac{1}{2}"]),
    ],
)
def test_answers(value, answers):
    assert answers_value(value, "c") == answers


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"text": "red"}, "column c is a dict"),
        ('{"text": "red"}', "column c is a mapping in a text, no answer"),
        ("{'a': 1}", "column c is a mapping in a text"),
        ([["a"], ["b"]], "column c is a list"),
        ([{"text": "a"}], "column c is a dict"),
        (["a", INF], "column c is Infinity"),
        ("['red' 'blue']", "column c: two texts have no comma between them"),  # a print of a numpy array
        (r'["\frac{1}{2}"]', "column c: a backslash that is not doubled"),
        (r"['\underline{x}']", "column c is a text like a list, but cannot be read as one"),
        (r'["x \neq 2"]', "column c: a backslash that is not doubled"),
    ],
)
def test_what_is_no_answer(value, fault):
    with pytest.raises(ValueError, match=fault):
        answers_value(value, "c")


LETTERED = {"B": "blue", "A": "red", "C": "green"}


@pytest.mark.parametrize(
    "value",
    [
        ["red", "blue", "green"],
        ("red", " blue ", "green"),
        LETTERED,
        LETTERED | {"D": None, "E": NAN},  # a table gives all rows the same labels
        {"(a)": "red", "(b)": "blue", "(c)": "green"},
        {"0": "red", "1": "blue", "2": "green"},
        {"1": "red", "2": "blue", "3": "green"},
        {3: "green", 1: "red", 2: "blue"},
        {"text": ["red", "blue", "green"], "label": ["A", "B", "C"]},
        {"text": ["green", "red", "blue"], "label": ["3", "1", "2"]},
        "['red', 'blue', 'green']",
        '["red", "blue", "green"]',
        " ['red',\n 'blue', 'green',] ",
        json.dumps(LETTERED),
        repr(LETTERED),
        "{0: 'red', 1: 'blue', 2: 'green'}",
    ],
)
def test_options(value):
    assert options_value(value, "c") == ["red", "blue", "green"]


@pytest.mark.parametrize("value", [None, NAN, "", " ", [], {}, "[]"])
def test_no_options(value):
    assert options_value(value, "c") == []


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("red or blue", "column c is a text that is no list of options: 'red or blue'"),
        ("['red', blue]", "is a text that is no list"),
        ("[__import__('os').getcwd()]", "is a text that is no list"),
        ("[" * 5000 + "]" * 5000, "is a text that is no list"),
        ("[" + "1+" * 5000 + "1]", "is a text that is no list"),
        ("['" + "x" * 30_000 + "']", "is a text that is no list"),
        ("['red' 'blue']", "no comma between them"),
        (7, "column c is a int; it must be a list of options"),
        (["red", None], "column c: option 2 of 2 is empty"),
        (["red", ["blue"]], "column c is a list; it must be a text or a number"),
        ([{"label": "A", "text": "red"}], "column c is a dict"),
        ({"A": "red", "C": "green"}, "has the labels .'A', 'C'., not A, B, C"),
        ({"B": "red", "C": "green"}, "has the labels"),
        ({"A": "red", "1": "blue"}, "has the labels"),
        ({"red": "x", "blue": "y"}, "has the labels"),
        ({"A": None, "B": "blue"}, "option 1 of 2 is empty"),
        ({"2": "red", "3": "blue"}, "has the labels"),
        ({10**5000: "red"}, "column c, its labels, is a int"),  # too long for Python to write out
        ({"text": ["red"], "label": ["A", "B"]}, "has 2 labels for 1 options"),
    ],
)
def test_what_are_no_options(value, fault):
    with pytest.raises(ValueError, match=fault):
        options_value(value, "c")


def test_what_is_kept_is_json():
    assert kept({"a": 1, "b": None, "c": NAN, "d": {"e": [1]}}, *"abcdx") == {"a": 1, "d": {"e": [1]}}
    for value in (b"x", datetime.date(2024, 1, 2), {"x": NAN}, [INF], "\ud800", {1: "x", "y": 2}):
        with pytest.raises(ValueError, match="column a is no JSON value"):
            kept({"a": value}, "a")


def settled(*rows: tuple) -> str:
    columns = Columns("q", "a", None, "o").settled({"q": "?", "a": a, "o": o} for a, o in rows)
    return columns.index


RGB, NUMBERS = ["red", "green", "blue"], ["1", "2", "3"]


@pytest.mark.parametrize(
    ("rows", "index"),
    [
        ([(0, RGB), (2, RGB)], "0"),
        ([("0", RGB), ("1", RGB)], "0"),
        ([(1.0, RGB), (3.0, RGB)], "1"),
        ([([1], RGB), ([3], RGB)], "1"),
        ([(1, RGB), (2, RGB)], "unclear"),  # neither the first by 0 nor the last by 1
        ([(0, RGB), (3, RGB)], "unclear"),
        ([(0, RGB), (9, RGB), (None, RGB), (-1, RGB)], "0"),  # what can be nothing says nothing
        ([(1, NUMBERS), (3, NUMBERS)], "none"),
        ([(30, ["30", "40", "50"]), (3, ["60", "70", "80"])], "none"),  # the first can only be a text
        ([(0, RGB), (2, NUMBERS)], "unclear"),  # by 0 the third, but the second says 2
        ([(0, RGB), (0, ["0", "1"])], "0"),
        ([(0, RGB), ("red", RGB)], "unclear"),
        ([(0, RGB), ("A", RGB)], "unclear"),
        ([("red", RGB), ("B", RGB)], "none"),
        ([], "none"),
    ],
)
def test_what_a_whole_number_is_the_whole_file_says(rows, index):
    assert settled(*rows) == index


def test_a_whole_number_as_answer():
    assert Columns(index="0").letter("0", RGB) == Columns(index="1").letter("1", RGB) == "A"
    assert Columns(index="0").letter("2", NUMBERS) == "C" and Columns(index="none").letter("2", NUMBERS) == "B"
    assert Columns(index="0").letter("green", RGB) == "B" and Columns(index="unclear").letter("C", RGB) == "C"
    with pytest.raises(ValueError, match=r"column answer: 0, counted from 1, is none of 3 options"):
        Columns(index="1").letter("0", RGB)
    for index in ("none", "unclear"):
        with pytest.raises(ValueError, match="column answer: 0 .*say --answer-index 0 or 1, or none"):
            Columns(index=index).letter("0", RGB)


def write(path: Path, rows: list[dict], schema: pa.Schema | None = None) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def convert(folder: Path, data: str, *argv: str) -> tuple[list, list[dict]]:
    """The samples, and the rejected rows."""
    out = folder / "out"
    main(["columns", str(out), "--data", data, *argv])
    samples = list(read_samples(out / "train.parquet")) if (out / "train.parquet").exists() else []
    return samples, [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_answers_by_place_in_a_file(tmp_path, suffix):
    rows = [{"question": f"{i}?", "answer": i % 3, "options": RGB} for i in range(6)]
    data = write(tmp_path / f"a{suffix}", rows)
    samples, rejected = convert(tmp_path, data, "--options-column", "options")
    assert [sample.gold for sample in samples] == list("ABCABC") and not rejected
    samples, rejected = convert(tmp_path, data, "--options-column", "options", "--answer-index", "1")
    assert [sample.gold for sample in samples] == list("ABAB") and [r["index"] for r in rejected] == [0, 3]


def test_a_missing_column_is_named_before_the_answers_are_read(tmp_path, capsys):
    data = write(tmp_path / "a.parquet", [{"question": "?", "answer": 0, "choices": RGB}])
    assert main(["columns", str(tmp_path / "out"), "--data", data, "--options-column", "options"]) == 2
    assert "no column options; it has question, answer, choices. columns needs" in capsys.readouterr().err


def test_unclear_places_reject_their_rows_and_say_what_to_do(tmp_path):
    answers = [1, 2, "red", 1]
    rows = [{"question": f"{i}?", "answer": answer, "options": RGB} for i, answer in enumerate(answers)]
    samples, rejected = convert(tmp_path, write(tmp_path / "a.jsonl", rows), "--options-column", "options")
    assert [sample.gold for sample in samples] == ["A"] and [r["index"] for r in rejected] == [0, 1, 3]
    assert all("say --answer-index 0 or 1" in r["text"] and "column answer" in r["text"] for r in rejected)


def test_several_answers_are_a_kind_of_rejection_of_their_own(tmp_path):
    rows = [{"question": f"{i}?", "answer": a} for i, a in enumerate((["2"], ["2", "3"], "['a', 'b']", ["2", "2"]))]
    samples, rejected = convert(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert [sample.gold for sample in samples] == ["2", "2"]
    assert [(r["index"], r["kind"], r["text"]) for r in rejected] == [
        (1, "several answers", "column answer gives 2 answers: 2; 3"),
        (2, "several answers", "column answer gives 2 answers: a; b"),
    ]


def test_any_of_several_answers_is_right_where_the_user_says_so(tmp_path):
    rows = [
        {"question": "Who?", "answer": ["Ann Lee", "Ann"]},
        {"question": "How many?", "answer": "['2', 'two']"},
        {"question": "Which?", "answer": ["red", "blue"], "options": RGB},
        {"question": "What?", "answer": ["5", "1+"]},
        {"question": "Where?", "answer": ["here", "<|im_start|>"]},
    ]
    arguments = ("--several-answers", "any", "--options-column", "options")
    samples, rejected = convert(tmp_path, write(tmp_path / "a.jsonl", rows), *arguments)
    assert [sample.golds for sample in samples] == [("Ann Lee", "Ann"), ("2", "two")]
    assert [(r["index"], r["kind"]) for r in rejected] == [(2, "several answers"), (3, "gold"), (4, "markup")]


def test_types_of_parquet(tmp_path):
    schema = pa.schema(
        [
            ("question", pa.large_string()),
            ("answer", pa.float32()),
            ("options", pa.large_list(pa.large_string())),
            ("images", pa.list_(pa.large_binary())),
        ]
    )
    rows = [{"question": "How long?", "answer": 0.1}, {"question": "How far?", "answer": None}]
    rows += [{"question": "Which?", "answer": 2.0, "options": ["1", "2"]}]
    rows += [{"question": "How many?", "answer": value} for value in (NAN, INF)]
    data = write(tmp_path / "a.parquet", rows, schema)
    samples, rejected = convert(tmp_path, data, "--options-column", "options", "--images-column", "images")
    assert [(sample.gold, sample.options) for sample in samples] == [("0.1", ()), ("B", ("1", "2"))]
    assert [(r["index"], r["text"]) for r in rejected] == [
        (1, "column answer is empty"),
        (3, "column answer is empty"),
        (4, "column answer is Infinity; it must be a finite number"),
    ]


def test_structs_and_dictionaries_of_parquet(tmp_path):
    options = pa.struct([(letter, pa.string()) for letter in "ABC"])
    schema = pa.schema(
        [("question", pa.dictionary(pa.int32(), pa.string())), ("answer", pa.list_(pa.string())), ("options", options)]
    )
    rows = [{"question": "Which?", "answer": ["blue"], "options": {"A": "red", "B": "blue", "C": None}}]
    rows += [{"question": "Why?", "answer": ["x"], "options": {"A": "x", "B": None, "C": "y"}}]
    samples, rejected = convert(tmp_path, write(tmp_path / "a.parquet", rows, schema), "--options-column", "options")
    assert [(sample.gold, sample.options) for sample in samples] == [("B", ("red", "blue"))]
    assert [(r["index"], r["text"]) for r in rejected] == [(1, "column options: option 2 of 3 is empty")]


def test_dates_and_bytes_name_their_column(tmp_path):
    schema = pa.schema([("question", pa.binary()), ("answer", pa.timestamp("us"))])
    rows = [{"question": b"When?", "answer": datetime.datetime(2024, 1, 2)}]
    _, rejected = convert(tmp_path, write(tmp_path / "a.parquet", rows, schema))
    assert [r["text"] for r in rejected] == ["column answer is a datetime; it must be a text or a number"]


def test_text_that_is_no_utf8_rejects_its_row_only(tmp_path):
    texts = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0\6\0\0\0"), pa.py_buffer(b"a?\xff\xfeb?")]
    )
    pq.write_table(pa.table({"question": texts, "answer": ["1", "2", "3"]}), tmp_path / "a.parquet")
    samples, rejected = convert(tmp_path, str(tmp_path / "a.parquet"))
    assert [sample.gold for sample in samples] == ["1", "3"] and [r["index"] for r in rejected] == [1]
    assert rejected[0]["text"].startswith("the row cannot be read (")


def test_a_column_may_change_its_type_late_in_a_large_file(tmp_path):
    """Arrow takes the type of a column from the first block: an int that becomes a text later was an error."""
    late = 60_000
    with (tmp_path / "a.jsonl").open("w") as file:
        for i in range(late):
            file.write(json.dumps({"question": f"{i} {'x' * 200}?", "answer": i, "options": None}) + "\n")
        odd = [{"answer": "red"}, {"answer": {"text": "red"}}, {"answer": ["7"]}, {"answer": "B", "options": RGB}]
        for row in [*odd, {"options": "none", "answer": 1}, {"options": None}]:
            file.write(json.dumps({"question": "Odd?"} | row) + "\n")
        file.write('{"question": "Cut?"\n[1]\n')
    source = Columns(options="options", images=None).source()
    golds, faults = [], {}
    for index, row in enumerate(open_rows(source, str(tmp_path / "a.jsonl"), "train").rows):
        try:
            golds.append(source.draft(row).gold if not isinstance(row, Unreadable) else 1 / 0)
        except ValueError as error:
            faults[index - late] = str(error)
        except ZeroDivisionError:
            faults[index - late] = row.text if isinstance(row, Unreadable) else ""
    assert golds == [*map(str, range(late)), "red", "7", "B"]
    assert faults[1] == "column answer is a dict; it must be a text or a number"
    assert faults[4].startswith("column options is a text that is no list") and faults[5] == "column answer is empty"
    assert faults[6].startswith(f"line {late + 7} is no JSON") and faults[7] == f"line {late + 8} is a list, no object"
    assert len(faults) == 5


def test_json_lines_and_lists_as_they_come(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"question": "a?", "answer": 1}\n\n{"question": "\xff"}\nnull\n')
    samples, rejected = convert(tmp_path, str(tmp_path / "a.jsonl"))
    assert [sample.gold for sample in samples] == ["1"]
    assert [r["text"].split(" (")[0] for r in rejected] == ["line 3 is no JSON", "line 4 is a NoneType, no object"]
    (tmp_path / "b.json").write_text('[7, {"answer": NaN, "question": "b?"}, {"question": "c?", "answer": 2}]')
    samples, rejected = convert(tmp_path, str(tmp_path / "b.json"))
    assert [sample.gold for sample in samples] == ["2"]
    assert [r["text"] for r in rejected] == ["it is a int, no object", "column answer is empty"]
    (tmp_path / "c.jsonl").write_text("[" * 100_000 + "\n" + '{"question": "d?", "answer": "\\ud800"}\n')
    samples, rejected = convert(tmp_path / "c", str(tmp_path / "c.jsonl"))
    assert not samples and rejected[1]["text"] == "column answer holds half a surrogate pair, which is no text"


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.sampled_from(
        ["A", "B", "1", "red", "['red', 'blue']", '{"A": "red"}', "<image>", "<|image_pad|>", "[1, 2]", ""]
    ),
)
KEYS = st.sampled_from(["A", "B", "C", "0", "1", "text", "label", "bytes", "path", "value", "from", "role", "content"])
NESTED = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
# columns that drafts use where a row has them
MORE = (
    "metadata",
    "precision",
    "unit",
    "answer_type",
    "context",
    "system",
    "decoded_image",
    "id",
    "category",
    "subject",
)
MORE += ("question_for_eval", "image_2", "filename")


def a_source(name: str) -> Source:
    return SOURCES.get(name) or Columns(options="options", response="solution").source()


def sources_and_rows(name: str):
    columns = a_source(name).columns
    more = dict.fromkeys([column for column in MORE if column not in columns], NESTED)
    return st.tuples(st.just(a_source(name)), st.fixed_dictionaries(dict.fromkeys(columns, NESTED), optional=more))


@settings(max_examples=500, deadline=None)
@given(drawn=st.sampled_from([*SOURCES, "options"]).flatmap(sources_and_rows))
def test_no_row_raises_anything_but_a_documented_rejection(drawn):
    source, row = drawn
    try:
        draft = source.for_training(source.draft(row))
    except ValueError:
        return
    assert all(isinstance(text, str) for text in (draft.question, draft.gold, *draft.options))
    for text in (draft.question, draft.gold, *draft.options, draft.response or ""):
        text.encode()
    json.dumps(dict(draft.extra), allow_nan=False)


TSV_NAMES = ["question", "answer", "choices", "A", "B", "C", "category", "split", "image", "answer_type", "metadata"]


@settings(max_examples=300, deadline=None)
@given(
    row=st.fixed_dictionaries({"index": st.text(max_size=12)}, optional=dict.fromkeys(TSV_NAMES, st.text(max_size=30))),
    source=st.sampled_from([source for source in SOURCES.values() if source.tsv]),
)
def test_no_row_of_a_tsv_raises_anything_but_a_documented_rejection(row, source):
    try:
        assert set(row) - {"image"} <= set(source.tsv(row))
    except ValueError:
        return


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.fixed_dictionaries(dict.fromkeys(("question", "answer", "options", "images"), NESTED)), max_size=6)
)
def test_no_file_ends_in_anything_but_a_sentence(rows):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = {"question": "Which?", "answer": "red", "options": None, "images": None}
        (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in [good, *rows]))
        argv = ["--options-column", "options", "--images-column", "images", "--max-rejected", "1"]
        samples, rejected = convert(folder, str(folder / "a.jsonl"), *argv)
        assert len(samples) + len(rejected) == len(rows) + 1 and samples[0].gold == "red"
        assert not [r for r in rejected if "Error: " in r["text"] and r["kind"] == "row"]


@settings(max_examples=200, deadline=None)
@given(value=NESTED)
def test_values_are_texts_or_value_errors(value):
    for read in (text_value, answers_value, options_value):
        try:
            found = read(value, "c")
        except ValueError as error:
            assert str(error).startswith("column c")
            continue
        for text in [found] if isinstance(found, str) else found:
            assert isinstance(text, str) and text == text.strip()
    if isinstance(value, float) and math.isfinite(value):
        check_gold(text_value(value, "c"))


@pytest.mark.parametrize("levels", [300, 480, 900])
def test_a_list_nested_deep_in_a_text_is_refused_or_kept(levels):
    text = "[" * levels + "'a'" + "]" * levels
    for read in (text_value, list_value, answers_value):
        read(text, "answer")
    with pytest.raises(ValueError, match="column options"):
        options_value(text.replace("'", '"'), "options")
