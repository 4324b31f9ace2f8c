"""The page in a real browser: what it shows for a given location, and that text of the record is text."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from avar_rl.rollouts.page import Selection, build
from avar_rl.rollouts.record import write_step
from tests.unit.browser import Element, Tree, browse, needs_browser, show
from tests.unit.rollout_samples import HOSTILE, rollout, write_record

pytestmark = needs_browser


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rollouts")
    path = folder / "page.html"
    path.write_text(build(write_record(folder), Selection(), "tiny <b>run</b>"), encoding="utf-8")
    return path


def shown(root: Element) -> list[list[str]]:
    """Totals of the responses, group by group."""
    return [[card.all("h3")[0].children[0] for card in group.all(".response")] for group in root.all(".group")]


def test_a_step_with_its_groups_parts_and_verdicts(page):
    root = show(page, "step=1")
    assert shown(root) == [["1.25", "0.1"], ["0.1", "-0.5"]]
    assert [badge.text for badge in root.all(".badge")] == ["right", "wrong", "wrong", "undecided", "masked"]
    assert [dd.text for dd in root.all(".gold")] == ["red", "blue"]
    # (1.25 + 0.1 + 0.1 - 0.5) / 4 and 1 right of 3 decided
    assert "Step 1: mean reward 0.237, accuracy 0.333. 4 responses of 2 groups shown." in root.all("#summary")[0].text
    first, second = root.all(".parts")[:2]
    assert [name.text for name in first.all(".name")] == ["accuracy", "visual", "format", "length"]
    assert [value.text for value in first.all(".value")] == ["1 raw 1", "0.15 raw 0.5", "0.1 raw 1", "0 raw –"]
    assert [bar.attributes["style"] for bar in first.all("i")] == [f"width: {w}%;" for w in (100, 15, 10, 0)]
    assert len(first.all(".closed")) == 0 and len(second.all(".closed")) == 1
    penalty = root.all(".parts")[3].all(".minus")[0]
    assert penalty.attributes["data-part"] == "length" and penalty.attributes["style"] == "width: 50%;"


def test_without_a_location_the_last_step_is_shown_and_without_masses_no_token_is_coloured(page):
    root = show(page, "")
    assert [b.attributes["aria-pressed"] for b in root.all(".strip")[0].all("button")] == ["false", "true"]
    assert shown(root) == [["1.25"]] and root.all(".text")[0].text == "<answer>4</answer> "
    assert all("style" not in token.attributes for token in root.all(".text")[0].all("span"))
    assert not root.all(".group")[0].all("img")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("min=0", [["1.25", "0.1"], ["0.1"]]),
        ("min=0.1&max=1", [["0.1"], ["0.1"]]),
        ("part=visual&min=0.5", [["1.25", "0.1"], ["0.1"]]),  # unweighted: 0.5, 0.8, 0.8 and 0.2
        ("part=accuracy&max=0", [["0.1"], ["0.1"]]),  # undecided is not wrong
        ("kind=mixed", [["1.25", "0.1"]]),
        ("kind=wrong", [["0.1", "-0.5"]]),
        ("kind=right", []),
        ("min=9", []),
    ],
)
def test_filters(page, filters, expected):
    root = show(page, f"step=1&{filters}")
    assert shown(root) == expected
    assert len(root.all(".empty")) == (not expected)


def colours(page: Path, hash_: str, response: int = 0) -> list[tuple[str, float]]:
    """Of each token of a response, (red, green, blue) and strength."""
    styles = [token.attributes.get("style", "") for token in show(page, hash_).all(".text")[response].all("span")]
    found = [re.fullmatch(r"background-color: rgba?\((\d+, \d+, \d+)(?:, ([\d.]+))?\);", style) for style in styles]
    return [(match[1], float(match[2] or 1)) if match else ("", -1.0) for match in found]


def test_tokens_are_coloured_by_mass(page):
    tokens = show(page, "step=1").all(".text")[0].all("span")
    expected = "image mass 0.1\nsystem mass 0.05\ndependence -0.8333 nats\nweight 2\nentropy 0.25 nats"
    assert [tokens[1].text, tokens[1].attributes["title"]] == ["I ", expected]
    alphas = [alpha for _, alpha in colours(page, "step=1")]
    assert alphas[0] == 0 and alphas == sorted(alphas) and max(alphas) == 0.62
    assert len(set(colours(page, "step=1&colour=system"))) == 1  # all 0.05
    assert set(colours(page, "step=1&colour=none")) == {("", -1.0)}


def test_dependence_has_a_colour_for_each_sign(page):
    found = colours(page, "step=1&colour=dependence")
    assert len(found) == 13 and found[6][1] == 0  # from -1 to 1 in 13 tokens
    (below, above) = ({colour for colour, _ in part} for part in (found[:6], found[7:]))
    assert len(below) == len(above) == 1 and below != above
    assert [alpha for _, alpha in found] == [alpha for _, alpha in reversed(found)]  # as far from 0, as strong
    assert found[0][1] == found[-1][1] == 0.62
    legend = show(page, "step=1&colour=dependence").all("#legend")[0]
    assert legend.text == "-1 and less1 nats and morein this step -1 to 1"
    gradient = legend.all("i")[0].attributes["style"]
    assert gradient.index(next(iter(below))) < gradient.index(next(iter(above)))


def test_a_token_of_weight_0_is_pale_and_responses_without_weights_are_not_coloured(page):
    assert [alpha for _, alpha in colours(page, "step=1&colour=weight")] == [0.0, 0.62] * 6 + [0.0]
    assert set(colours(page, "step=1&colour=weight", response=1)) == {("", -1.0)}
    legend = show(page, "step=1&colour=weight").all("#legend")[0].text
    assert legend == "02 and morein this step 0 to 2"
    assert show(page, "step=2&colour=weight").all("#legend")[0].text == "not recorded in this step"


def test_only_what_is_recorded_is_offered(page, tmp_path):
    def offered(page: Path) -> list[str]:
        root = show(page, "colour=region")  # which neither record has
        (choice,) = [select for select in root.all("select") if select.attributes["name"] == "colour"]
        return [option.attributes["value"] for option in choice.all("option")]

    assert offered(page) == ["image", "system", "dependence", "weight", "entropy", "none"]
    bare = {"image_mass": (), "system_mass": (), "region_mass": (0.1, 0.2)}
    for name, changes in (("region", bare), ("nothing", bare | {"region_mass": ()})):
        write_step(tmp_path / name, 1, [rollout("I see", **changes)])
        (tmp_path / f"{name}.html").write_text(build(tmp_path / name, Selection(), name), encoding="utf-8")
    assert offered(tmp_path / "region.html") == ["region", "none"]
    assert [alpha for _, alpha in colours(tmp_path / "region.html", "")] == [0.62, 0.62]  # from half the values on
    assert offered(tmp_path / "nothing.html") == ["none"]


def test_markup_in_the_record_is_shown_and_not_obeyed(page):
    root = show(page, "step=1")
    assert root.all("title")[0].text == "Rollouts · tiny <b>run</b>"
    assert root.all(".text")[2].text == HOSTILE + " "
    assert all(image.attributes["src"].startswith("data:image/png;base64,") for image in root.all("img"))
    assert len(root.all("img")) == 2 and len(root.all("script")) == 2


def test_nothing_is_fetched_from_outside(page):
    root = Tree(page.read_text(encoding="utf-8")).root
    elements = [element for tag in ("link", "script", "img", "iframe") for element in root.all(tag)]
    assert elements and not [element.tag for element in elements if {"src", "href"} & element.attributes.keys()]
    assert "@import" not in page.read_text() and "url(" not in root.all("style")[0].text


def test_controls_change_the_view_and_the_location(page, tmp_path):
    clicks = """<script>
      document.querySelectorAll(".strip button")[0].click();
      setTimeout(() => {
        const kind = document.querySelector("[name=kind]");
        kind.value = "mixed"; kind.dispatchEvent(new Event("change", { bubbles: true }));
        setTimeout(() => { document.title = location.hash; }, 50);
      }, 50);
    </script></body>"""
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page.read_text(encoding="utf-8").replace("</body>", clicks), encoding="utf-8")
    root = Tree(browse(clicked, "", "--virtual-time-budget=2000", "--dump-dom")).root
    assert root.all("title")[0].text == "#step=1&kind=mixed"
    assert shown(root) == [["1.25", "0.1"]]


def test_the_picture_that_a_reader_sees(page, tmp_path):
    shot = tmp_path / "shot.png"
    browse(page, "step=1", f"--screenshot={shot}")
    image = Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")
    assert image.size == (1360, 900)
    colours = {colour: count for count, colour in image.getcolors(1 << 21)}
    assert colours.get((0xD6, 0x28, 0x28), 0) > 5000, "the red circle is not on the page"
    assert colours.get((37, 87, 214), 0) > 500, "no bar in the accent colour"
    # a token of full mass: the accent colour at 0.62 on white
    full = tuple(round(0.62 * c + 0.38 * 255) for c in (37, 87, 214))
    assert sum(n for c, n in colours.items() if max(abs(a - b) for a, b in zip(c, full, strict=True)) <= 2) > 200
