"""The tables of tried rewards: at any width every number is whole; text is what is cut, from its beginning."""

import itertools

import pytest

from rewards.listing import Tried, show

NAMES = ["accuracy", "format", "visual", "repetition", "length", "judge", "own_reward", "other"]
NUMBERS = [1.0, -0.123456, 12345.678, 1.5e-7, -9.87654e11, 0.75, 7.0, -1.0]
SHOWN = ["1", "-0.1235", "1.235e+04", "1.5e-07", "-9.877e+11", "0.75", "7", "-1"]
TEXTS = [
    "<think>I look.</think><answer>six circles</answer>",
    "我仔细看了图像,里面有六个蓝色的正方形。<answer>蓝色正方形</answer>",
]


def printed(capsys, monkeypatch, width: int, tried: list[Tried], limit: int | None = None) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    show(tried, limit)
    return capsys.readouterr().out


def tried(count: int, text: str, row_id: str = "geometry3k-train-00012") -> Tried:
    return Tried(row_id, "蓝色正方形", text, dict(zip(NAMES[:count], NUMBERS, strict=False)), "")


@pytest.mark.parametrize(("width", "count", "text"), list(itertools.product((60, 80, 200), (1, 3, 8), TEXTS)))
def test_numbers_and_names_are_whole_at_any_width(width, count, text, capsys, monkeypatch):
    from rich.cells import cell_len

    out = printed(capsys, monkeypatch, width, [tried(count, text), tried(count, text)])
    assert all(cell_len(line) <= width for line in out.splitlines())
    cells = [cell.strip() for line in out.splitlines() for cell in line.replace("┃", "│").split("│")]
    for name, shown in zip(NAMES[:count], SHOWN, strict=False):
        assert cells.count(name) >= 2  # over its column, and in the summary
        assert cells.count(shown) >= 2 + 3  # each response's; mean, min and max
    assert sum(cell.endswith("er>") for cell in cells) >= 2  # a response is cut at its beginning


def test_where_all_fits_there_is_one_table(capsys, monkeypatch):
    out = printed(capsys, monkeypatch, 200, [tried(8, TEXTS[0])])
    assert out.count("response") == 1 and "geometry3k-train-00012" in out and TEXTS[0] in out


def test_a_long_listing_shows_the_first_and_the_last(capsys, monkeypatch):
    out = printed(capsys, monkeypatch, 80, [tried(1, "r", f"row-{i}") for i in range(100)], limit=5)
    rows = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│ ")]
    assert rows == ["row-0", "row-1", "row-2", "…", "row-98", "row-99", "accuracy"]
    assert "… 95 more …" in out and "5 of 100 responses, 95 more between; --rows 0: all" in out


def test_what_is_not_applicable_or_failed_is_counted_apart(capsys, monkeypatch):
    values = [Tried("a", "6", "r", {"own": value}, "") for value in (1.0, 0.0, None)]
    failed = Tried("b", "6", "r", {"own": None}, "Traceback\nreward own failed on row b: OSError: gone")
    monkeypatch.setenv("COLUMNS", "80")
    show([*values, failed], None)
    captured = capsys.readouterr()
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in captured.out.splitlines() if "│" in line]
    assert [line[2] for line in lines[:4]] == ["1", "0", "–", "failed"]
    assert lines[4] == ["own", "2", "0.5", "0.5", "0", "1", "1"]  # mean and deviation of 1 and 0; one not applicable
    assert captured.err == "1 of 4 responses failed; the first:\nTraceback\nreward own failed on row b: OSError: gone\n"


def test_nothing_a_model_wrote_steers_the_terminal_or_stops_the_listing(capsys, monkeypatch):
    wild = "[bold]6[/bold] \x1b[2J\ud800\u2028 [/] end"
    out = printed(capsys, monkeypatch, 80, [Tried(wild, wild, wild, {"own": 1.0}, "")])
    assert "\x1b" not in out and "\ud800" not in out and "[/] end" in out


def test_a_column_wider_than_its_room_is_shown_all_the_same(capsys, monkeypatch):
    one = Tried("a", "6", "r" * 500, {"short": 0.5, "n" * 40: 0.25, "last": 0.125}, "")
    out = printed(capsys, monkeypatch, 60, [one])
    assert all(number in out for number in ("0.5", "0.25", "0.125")) and "n" * 40 in out
