"""What every room shares: whole files, layers by name, tables that keep their numbers, settings, images."""

import io
from typing import Annotated

import pytest
from pydantic import Field

from avar_rl.runtime import tables
from avar_rl.runtime.files import read_parquet, replacing, write_json, write_whole
from avar_rl.runtime.images import image_bytes, image_size, open_image
from avar_rl.runtime.layers import format_layers, parse_layers
from avar_rl.runtime.settings import Count, Flag, Number, Positive, Share, parse, settings


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_whole(path, "a\r\n")
    assert path.read_bytes() == b"a\r\n"
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_bytes() == b"a\r\n" and list(path.parent.iterdir()) == [path]
    write_json(path, {"a": [1]})
    assert path.read_text() == '{\n  "a": [\n    1\n  ]\n}\n'


def test_a_directory_replaces_the_one_before_it(tmp_path):
    folder = tmp_path / "model"
    for name in ("old", "new"):
        with replacing(folder) as partial:
            partial.mkdir()
            (partial / name).write_text(name)
    assert [file.name for file in folder.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [folder]


def test_rows_of_parquet_files_and_what_is_none(tmp_path):
    import pandas as pd

    pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}).to_parquet(tmp_path / "t.parquet")
    assert read_parquet(tmp_path / "t.parquet", ["b"]) == [{"b": "x"}, {"b": "y"}]
    pd.DataFrame({"a": []}).to_parquet(tmp_path / "empty.parquet")
    (tmp_path / "text.parquet").write_text("no")
    for name, what in (("none", "no such data file"), ("text", "not a readable parquet"), ("empty", "holds no rows")):
        with pytest.raises(ValueError, match=what):
            read_parquet(tmp_path / f"{name}.parquet")


@pytest.mark.parametrize(
    ("text", "layers"),
    [("3", (3,)), ("0-2,20", (0, 1, 2, 20)), ("0-2+20", (0, 1, 2, 20)), ("5, 1-2", (1, 2, 5)), ("4-4,4", (4,))],
)
def test_layers_by_name(text, layers):
    assert parse_layers(text, "--layers") == layers
    assert parse_layers(format_layers(layers), "--layers") == layers


def test_layers_are_named_in_their_shortest_form():
    assert format_layers((0, 1, 2, 20)) == "0-2,20" and format_layers((0, 2), "+") == "0+2" and format_layers(()) == ""


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1--2", "1,,2", "3-1", "1.5", "0-99999999", "1;2"])
def test_what_names_no_layers_is_refused_with_its_place(text):
    with pytest.raises(ValueError, match=r"^--layers '.*FIRST-LAST"):
        parse_layers(text, "--layers")


def rendered(width: int, monkeypatch, cells: list) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    table = tables.table(["row", "score", "mean", "the response ends"], text=["the response ends"])
    table.add_row(*cells)
    screen = tables.console()
    with screen.capture() as capture:
        screen.print(table)
    return capture.get()


def test_a_narrow_table_cuts_text_and_keeps_every_number(monkeypatch):
    cells = ["row-1", "0.123456", "1234.5678", tables.cut("[bold] a long\nresponse \x1b[31m\ud800 " * 20)]
    for width in (60, 80, 200):
        text = rendered(width, monkeypatch, cells)
        assert "0.123456" in text and "1234.5678" in text and "row-1" in text and "…" in text
        assert "[bold] a" in text and "\x1b" not in text and max(map(len, text.splitlines())) <= width
    assert len(rendered(60, monkeypatch, cells).splitlines()) == 5  # one line a row


def test_without_a_width_a_table_has_120_columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert tables.console().width == 120


def test_long_listings_show_their_ends():
    assert tables.shortened("abcdefg", 4) == ("ab", "fg", 3)
    assert tables.shortened("abcdefg", 3) == ("ab", "g", 4)
    assert tables.shortened("abc", 3) == tables.shortened("abc", None) == ("abc", (), 0)


@settings
class Inner:
    share: Share = 0.5
    on: Flag = False


@settings
class Outer:
    rate: Positive
    n: Count = 1
    inner: Inner = Inner()
    any: Annotated[Number, Field(le=2)] | None = None


def test_settings_are_read_from_what_yaml_gives():
    found = parse(Outer, {"rate": "1e-6", "inner": {"share": 1}}, "avar")
    assert found == Outer(rate=1e-6, inner=Inner(share=1.0)) and found.any is None
    with pytest.raises(AttributeError):
        found.n = 2


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rate": 1, "inner": {"sahre": 1}}, "unknown key avar.inner.sahre (did you mean share?)"),
        ({"rate": 1, "zzz": 1}, "unknown key avar.zzz; known: any, inner, n, rate"),
        ({}, "missing key avar.rate"),
        ({"rate": 0}, "avar.rate: Input should be greater than 0, not 0"),
        ({"rate": True}, "avar.rate: Input should be a number, not True"),
        ({"rate": "fast"}, "avar.rate: Input should be a valid number, unable to parse string as a number, not 'fast'"),
        ({"rate": float("nan")}, "avar.rate: Input should be a finite number, not nan"),
        (
            {"rate": 1, "n": 1.5},
            "avar.n: Input should be a valid integer, got a number with a fractional part, not 1.5",
        ),
        ({"rate": 1, "n": True}, "avar.n: Input should be a number, not True"),
        ({"rate": 1, "inner": {"on": "yes"}}, "avar.inner.on: Input should be a valid boolean, not 'yes'"),
        ({"rate": 1, "inner": 3}, "avar.inner must be a mapping of keys to values, not 3"),
        ({"rate": 1, "any": 3}, "avar.any: Input should be less than or equal to 2, not 3"),
        ([1], "avar must be a mapping of keys to values, not [1]"),
    ],
)
def test_a_mistake_in_settings_is_one_sentence_with_its_place(values, sentence):
    with pytest.raises(ValueError) as error:
        parse(Outer, values, "avar")
    assert str(error.value) == sentence


def test_images_in_every_form_that_rows_have(tmp_path):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (5, 3)).save(file, "PNG")
    data = file.getvalue()
    (tmp_path / "a.png").write_bytes(data)
    for value in (data, "a.png", f"file://{tmp_path}/a.png", {"bytes": data, "path": None}, {"path": "a.png"}):
        assert image_bytes(value, tmp_path) == data and image_size(value, tmp_path) == (5, 3)
    picture = Image.new("RGB", (2, 2))
    assert open_image(picture) is picture and open_image({"image": picture}) is picture


@pytest.mark.parametrize("value", [None, b"", "", {}, {"bytes": None}, 3, "no.png"])
def test_no_image_is_named_with_its_row(value, tmp_path):
    with pytest.raises(ValueError, match="^row 7: .*image"):
        image_bytes(value, tmp_path, "row 7")


def test_a_broken_image_is_named(tmp_path):
    with pytest.raises(ValueError, match="^row 7: an image cannot be read"):
        open_image(b"no image", tmp_path, "row 7")
