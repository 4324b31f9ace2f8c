"""The report's arithmetic and its page."""

from pathlib import Path

from data_tools.synthesis.calls.journal import Usage
from data_tools.synthesis.inputs.recipe import load_recipe
from data_tools.synthesis.outcomes.export import FilteredExample, Tally
from data_tools.synthesis.outcomes.report import histogram, show, tables, write_page

TINY = Path(__file__).parents[2] / "recipes" / "config" / "synthesis" / "tiny.yaml"


def tally() -> Tally:
    found = Tally(candidates=4, responses=1, tokens=[12], anchors=[2])
    found.rows.update({("a", "exported"): 1, ("a", "filtered"): 2, ("b", "failed"): 1})
    found.reached.update({"describe": 4, "reason": 2, "anchor": 1})
    found.filters.update({("describe", "refusal"): 2})
    found.by_source.update({("a", "refusal"): 2})
    found.reasons.update({("failed", "no answer in 2 s"): 1})
    found.examples["refusal"] = [FilteredExample("a/1", "sorry", "<script>alert(1)</script>")]
    found.samples.append({"row": "a/2", "question": "1 < 2?", "response": "<think>x</think>"})
    return found


def test_tables_by_hand():
    usage = {"reason": Usage("reason", 2, 1_000_000, 500_000, 3, 4.0)}
    recipe = load_recipe(TINY, ["stages.reason.price.prompt=2", "stages.reason.price.completion=10"])
    by_title = {table.title.split(" (")[0]: table.rows for table in tables(tally(), usage, 9, recipe)}
    assert by_title["Funnel"][0] == ("rows", "4", "100.0%")
    assert ("exported", "1", "25.0%") in by_title["Funnel"] and ("pending", "0", "0.0%") in by_title["Funnel"]
    assert by_title["Filters"] == (
        ("refusal", "0", "2", "0", "0", "50.0%", "the teacher declines, or says that it sees no image"),
    )
    assert by_title["By source"][0] == ("a", "3", "1", "2", "0", "0", "33.3%", "refusal 2")
    assert by_title["Failures"] == (("no answer in 2 s", "1"),)
    # one million prompt tokens at 2 dollars and half a million at 10: 2 + 5
    assert by_title["Usage"][0][-2:] == ("2.00", "7.00") and by_title["Usage"][-1][2] == "9"


def test_a_narrow_console_cuts_text_and_no_number(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    found, stages = tally(), ("describe", "reason", "anchor")
    found.rows["algopuzzlevqa", "exported"] = 12345
    found.by_source["algopuzzlevqa", "decorative_anchors"] = 10000
    usage = {name: Usage(name, 123456, 312_450_123, 112_450_456, 130_007, 3_500_000.0) for name in stages}
    show(tables(found, usage, 400_009, load_recipe(TINY, ["stages.reason.price.prompt=4.85"])))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    reasoning = next(line for line in lines if line.startswith("│ reason: "))
    # 312,450,123 tokens at 4.85 dollars a million; 3,500,000 s / 123,456 calls
    assert [cell.strip() for cell in reasoning.split("│")[2:-1]] == [
        "123456",
        "130007",
        "312,450,123",
        "112,450,456",
        "28.35",
        "1515.38",
    ]
    source = next(line for line in lines if "algopuzzlevqa" in line)
    assert source.count("12345") == 2 and "100.0%" in source and "…" in source
    assert "declines" not in "".join(lines)  # what a filter means stands on the page alone


def test_histograms():
    plot, wide = histogram("t", [1, 1, 2]), histogram("t", list(range(100)))
    assert plot and wide
    assert [bar.label for bar in plot.bars] == ["1: 2", "2: 1"]
    assert [bar.height for bar in plot.bars] == [140, 70]
    assert wide.bars[0].label == "0 to 6: 7" and len(wide.bars) <= 16
    assert histogram("t", []) is None


def test_the_page_escapes_what_teachers_say(tmp_path):
    found = tally()
    write_page(tmp_path / "report.html", tables(found, {}, 0, load_recipe(TINY)), found, "the budget is spent")
    page = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;" in page and "<script>" not in page
    assert "Not finished: the budget is spent" in page and "<svg" in page
    assert "http" not in page.replace("http-equiv", "")  # loads nothing
