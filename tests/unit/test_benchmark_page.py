"""A model's page in a real browser: scores, filters, a question with its texts and images, and that text is text."""

import json
from pathlib import Path

import pytest
from PIL import Image

from avar_rl.evaluation.benchmarks.reporting.answered import overlay_path, read_results
from avar_rl.evaluation.benchmarks.reporting.page import CHUNK, thumbnail, write_page
from tests.unit.benchmark_folder import BASE, HOSTILE, SAMPLES, picture, vista, write_folder, write_model
from tests.unit.browser import Element, browse, needs_browser, show

ONE = "id=mathvista%2Ftestmini%2F1"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    out = write_folder(tmp_path_factory.mktemp("out"))
    return write_page(out, "base", read_results(out))


@needs_browser
def test_scores_stand_beside_the_published_ones(page):
    rows = show(page, "").all("#scores")[0].all("tr")
    head, vista_row, hallusion_row = ([cell.text for cell in row.children] for row in rows)
    assert head[:6] == ["benchmark", "official", "ours", "n", "truncated", "unparsed"]
    assert head[6:8] == ["AVAR base", "AVAR-Thinker"]
    # a part of the questions: every number says so
    assert vista_row[:3] == ["MathVista (testmini)", "25.0 [10.0, 90.0]LIMITED", "50.0 [10.0, 90.0]LIMITED"]
    assert vista_row[3:6] == ["4 of 1,000", "1", "2"] and vista_row[6:8] == ["68.2", "74.7"]
    assert hallusion_row[:4] == ["HallusionBench (image)", "61.1 [20.0, 80.0]", "61.1 [20.0, 80.0]", "951"]


@needs_browser
def test_a_chosen_benchmark_shows_its_metrics_groups_and_settings(page):
    hallusion = show(page, "benchmark=hallusionbench").all("#about")[0]
    assert [row.text for row in hallusion.all(".block")[0].all("tr")][:3] == [
        "metricofficialours",
        "mean of aAcc, fAcc, qAcc61.1 [20.0, 80.0]61.1 [20.0, 80.0]",
        "aAcc66.7 [20.0, 80.0]66.7 [20.0, 80.0]",
    ]
    vista_about = show(page, "benchmark=mathvista").all("#about")[0]
    assert "figure question answering425.0 [10.0, 90.0]50.0" in vista_about.text.replace(" ", " ")
    settings = dict(
        zip([one.text for one in vista_about.all("dt")], [one.text for one in vista_about.all("dd")], strict=True)
    )
    assert (settings["prompts hash"], settings["generation max pixels"]) == ("0f0f0f", "12845056")
    assert "model files" not in " ".join(settings)


FILTERS = {
    "benchmark=mathvista": ["1", "2", "3", "4"],
    "benchmark=mathvista&official=r": ["1"],
    "benchmark=mathvista&official=wp": ["2", "3", "4"],  # unparsed counts as wrong
    "benchmark=mathvista&official=p": ["2", "3"],
    "benchmark=mathvista&ours=u": ["2"],
    "benchmark=mathvista&disagree=1": ["3"],
    "truncated=1": ["2"],
    "text=CIRCLE%203": ["3"],
    "benchmark=mathvista&group=context%3Dsynthetic%20scene": ["1", "2", "3", "4"],
    "benchmark=mathvista&group=context%3Dother": [],
    "text=nothing": [],
}


@needs_browser
def test_filters(page):
    visit = """<script>
      const found = [], places = PLACES;
      const next = () => {
        if (location.hash) found.push([...document.querySelectorAll(".row .id")].map((id) => id.textContent)
          .concat(document.getElementById("summary").textContent));
        if (places.length) { location.hash = places.shift(); setTimeout(next, 100); }
        else document.title = JSON.stringify(found);
      };
      next();
    </script></body>"""
    html = page.read_text(encoding="utf-8").replace("</body>", visit.replace("PLACES", json.dumps(list(FILTERS))))
    visited = page.with_name("visited.html")
    visited.write_text(html, encoding="utf-8")
    found = json.loads(show(visited, "", "--virtual-time-budget=5000").all("title")[0].text)
    for (filters, expected), (*ids, summary) in zip(FILTERS.items(), found, strict=True):
        assert [id_.removeprefix("mathvista/testmini/") for id_ in ids] == expected, filters
        assert summary.startswith(f"{len(expected)} of 7 questions"), filters


@needs_browser
def test_a_question_with_image_prompt_verdicts_and_samples(page):
    detail = show(page, ONE).all("#detail")[0]
    assert detail.all("h2")[0].text == "mathvista/testmini/1"
    assert detail.all(".prompt")[0].text == "What colour has circle 1?\n(A) red\n(B) blue"
    assert [row.text for row in detail.all(".verdicts")[0].all("tr")] == [
        "officialrightred",
        "oursrightA",
        "length12 tokens",
    ]
    assert [button.text for button in detail.all("button")] == ["greedy right", "sample 1 wrong"]
    assert detail.all(".response")[0].text == BASE["mathvista"][0][2]
    assert detail.all(".thought")[0].text == "<think>It is red.</think>"
    source = detail.all(".images")[0].all("img")[0].attributes["src"]
    assert Image.open(page.parent / source).size == (96, 96)


@needs_browser
def test_a_sample_is_shown_when_it_is_chosen(page, tmp_path):
    clicks = '<script>setTimeout(() => document.querySelectorAll(".draws button")[1].click(), 500)</script></body>'
    clicked = page.with_name("clicked.html")
    clicked.write_text(page.read_text(encoding="utf-8").replace("</body>", clicks), encoding="utf-8")
    detail = show(clicked, ONE, "--virtual-time-budget=3000").all("#detail")[0]
    assert detail.all(".response")[0].text == "<think>It is blue.</think><answer>B</answer>"


@needs_browser
def test_an_overlay_is_shown_where_there_is_one_and_else_what_makes_it(page):
    def overlay() -> Element:
        return show(page, ONE, "--virtual-time-budget=3000").all(".overlay")[0]

    assert overlay().all("code")[0].text.endswith("--models base --overlay mathvista/testmini/1")
    path = page.parent / overlay_path("base", "mathvista/testmini/1")
    path.parent.mkdir()
    path.write_bytes(picture("#1d4ed8"))
    assert overlay().all("img") and not overlay().all("code")
    path.unlink()


@needs_browser
def test_markup_in_a_response_is_shown_and_not_obeyed(page):
    root = show(page, "id=mathvista%2Ftestmini%2F4", "--virtual-time-budget=1000")
    assert root.all(".response")[0].text == HOSTILE
    assert root.all("title")[0].text == "Benchmarks · base"


@needs_browser
def test_the_picture_that_a_reader_sees(page, tmp_path):
    shot = tmp_path / "shot.png"
    browse(page, ONE, "--virtual-time-budget=2000", f"--screenshot={shot}")
    colours = {colour: count for count, colour in Image.open(shot).convert("RGB").getcolors(1 << 21)}
    assert sum(n for (r, g, b), n in colours.items() if r > 190 and g < 80 and b < 80) > 1500, (
        "the red circle is not seen"
    )


def test_texts_are_in_files_of_a_few_questions_which_the_page_finds_by_place(tmp_path):
    samples = {"mathvista": [vista(1, id=f"mathvista/testmini/{number}") for number in range(CHUNK + 1)]}
    answers = {"mathvista": [(place, *BASE["mathvista"][0][1:]) for place in range(CHUNK + 1)]}
    write_model(tmp_path, "base", answers, samples)
    results = json.loads((write_folder(tmp_path / "other") / "benchmarks.json").read_text())
    del results["models"]["base"]["benchmarks"]["hallusionbench"]
    write_page(tmp_path, "base", results)
    files = sorted(path.name for path in (tmp_path / "base" / "page").glob("*.js"))
    assert files == ["mathvista.0.js", "mathvista.1.js"]
    name, number, texts = json.loads(
        (tmp_path / "base" / "page" / files[1]).read_text().removeprefix("loaded(").removesuffix(");\n")
    )
    assert (name, number, len(texts)) == ("mathvista", 1, 1)
    assert len(list((tmp_path / "base" / "page").glob("*.webp"))) == 1  # one image of them all


def test_a_thumbnail_is_small_written_once_and_a_broken_image_is_named(tmp_path):
    name = thumbnail(picture("red", (2000, 500)), tmp_path)
    assert Image.open(tmp_path / name).size == (448, 112)
    stamp = (tmp_path / name).stat().st_mtime_ns
    assert thumbnail(picture("red", (2000, 500)), tmp_path) == name and (tmp_path / name).stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="an image of a question: an image cannot be read"):
        thumbnail(b"no image", tmp_path)


def test_nothing_is_fetched_from_outside(page):
    html = page.read_text(encoding="utf-8")
    assert "http" not in html.partition('id="data"')[0] and "@import" not in html and "url(" not in html
    assert {sample.id for found in SAMPLES.values() for sample in found} <= set(json.loads(data_of(html)["ids"]))


def data_of(html: str) -> dict[str, str]:
    text = html.partition('id="data">')[2].partition("</script>")[0]
    return {"ids": json.dumps([question[1] for question in json.loads(text)["questions"]])}
