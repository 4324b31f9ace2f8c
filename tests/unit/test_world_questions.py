"""The miniature's questions: golds, thoughts and evidence against an independent reading of scene and text."""

import io
import random
import re
from collections import Counter
from fractions import Fraction

import pytest
from PIL import Image

from data_tools.miniature.questions import (
    NEEDS,
    WorldQuestion,
    arithmetic,
    circle,
    latex_fraction,
    latex_pi,
    listing,
    running_count,
    running_share,
    without_anchors,
)
from data_tools.miniature.scenes import CANVAS, COLOURS, Block, Scene, Shape
from data_tools.miniature.world import rl_rows
from tests.unit.small_world import USUAL, all_questions, asked_cell, at, cells_read, recomputed_gold, small_world

NEED_OF = dict(arithmetic="nothing", stated="nothing", usual="prior", unusual="prior", one_cell="cell")
NEED_OF |= dict(beside="second look", after_sum="look back")  # all others: the whole board


@pytest.fixture(scope="module")
def questions():
    return all_questions()


def of(kind: str) -> list[WorldQuestion]:
    return [question for question in all_questions() if question.kind == kind]


def test_golds_follow_from_scene_and_text(questions):
    for question in questions:
        if question.scene:
            assert question.gold == recomputed_gold(question), question


def test_every_kind_needs_of_the_image_what_it_says(questions):
    assert {q.need for q in questions} == set(NEEDS)
    assert all(q.need == NEED_OF.get(q.kind, "board") for q in questions)
    assert {q.need for q in small_world()["test"]} == set(NEEDS)


def test_what_a_text_states_is_what_its_image_shows():
    for q in of("stated"):
        ((a, one, b, other),) = re.findall(r"^There are (\d) (\w+) and (\d) (\w+) shapes\. How many shapes\?$", q.text)
        assert Counter(s.colour for s in q.scene.shapes) == {one: int(a), other: int(b)}


def test_a_named_shape_has_its_usual_colour_on_seven_of_ten_boards():
    usual, unusual = of("usual"), of("unusual")
    n = len(usual) + len(unusual)
    assert abs(len(usual) - 0.7 * n) < 4 * (0.7 * 0.3 * n) ** 0.5  # four standard deviations
    for q in usual + unusual:
        (name,) = re.findall(r"colour is the (\w+)\?", q.text)
        assert (at(q, *asked_cell(q)).colour == USUAL[name][2]) == (q.kind == "usual")


def test_what_the_last_image_had_says_nothing_of_this_one():
    pairs = Counter()
    for q in of("after_sum"):
        ((before, a, b),) = re.findall(r"^The last image had (\d) \w+ shapes?\. What is (\d) \+ (\d) and", q.text)
        pairs[int(before), int(q.gold) - int(a) - int(b)] += 1
    # 0 to 4 there and 0 to 4 here, independently: equal in a fifth of the questions
    equal, n = sum(pairs[i, i] for i in range(5)), pairs.total()
    assert {count for pair in pairs for count in pair} == {0, 1, 2, 3, 4}
    assert abs(equal - n / 5) < 4 * (0.16 * n) ** 0.5


def test_chain_of_thought_ends_in_the_gold_answer_and_is_anchored_where_it_needs_a_look(questions):
    for q in questions:
        for glance in (False, True):
            response = q.response(glance=glance)
            assert re.findall(r"^<think>.+</think><answer>(.+)</answer>$", response) == [q.gold]
            looks = re.findall(r"(?:Looking|Glancing)(?: back)? at the image: ", response)
            assert len(looks) == (q.need != "nothing"), response
        if q.need == "look back":
            assert re.match(r"\d \+ \d = \d+\. Looking back at the image: ", q.thought)
        elif q.scene:
            assert q.thought.startswith("Looking at the text: " if q.kind == "stated" else "Looking at the image: ")


def test_a_second_look_goes_where_the_first_one_found():
    for q in of("beside"):
        row, column = asked_cell(q)
        again = f"Looking again at {'abcdefghi'[3 * row + column]}: "
        assert q.thought.count(again) == 1 and again not in q.response(glance=True)


def test_a_response_without_anchors_keeps_what_it_says_of_the_board():
    said = {
        "Looking at the image: a - b red 1 c -. I see 1 red.": "a - b red 1 c -. I see 1 red.",
        "1 + 3 = 4. Looking back at the image: a -. I see 0 red. 4 + 0 = 4.": "1 + 3 = 4. a -. I see 0 red. 4 + 0 = 4.",
        "The circle is in a. Looking again at d: below it is red, A.": "The circle is in a. below it is red, A.",
        "1 + 3 = 4. Glancing at the image: I see 2 red. 4 + 2 = 6.": "1 + 3 = 4. I see 2 red. 4 + 2 = 6.",
        "Looking at the text: 2 + 1 = 3.": "2 + 1 = 3.",
        "12 - 4 = 8.": "12 - 4 = 8.",
    }
    assert {text: without_anchors(text) for text in said} == said


def test_no_word_of_the_image_is_left_without_anchors(questions):
    for q in questions:
        for glance in (False, True):
            bare = without_anchors(q.response(glance=glance))
            assert not re.search("Look|Glanc|image", bare) and bare.endswith(f"<answer>{q.gold}</answer>")


def test_choices_have_their_options(questions):
    for q in questions:
        assert bool(q.options) == (q.gold_kind == "choice")
        assert all(f"{letter}) {text}" in q.text for letter, text in zip("ABCD", q.options, strict=bool(q.options)))


def test_a_glance_concludes_without_listing(questions):
    enumerating = ("count_form", "count_colour", "compare", "shape_share", "position", "beside", "after_sum")
    for q in questions:
        assert (q.glance is not None) == (q.kind in enumerating)
        if q.glance is not None:
            sums = r"\d \+ \d = \d+\. " if q.kind == "after_sum" else ""
            assert re.match(f"{sums}Glancing at the image: ", q.glance) and " a " not in q.glance
            assert "Looking" not in q.response(glance=True)
        else:
            assert q.response(glance=True) == q.response()


def test_enumeration_lists_the_scene_in_reading_order(questions):
    attributes = dict(count_form="form", compare="form", count_colour="colour", shape_share="colour", position="colour")
    attributes |= dict(beside="form", after_sum="colour")
    for q in questions:
        if q.kind in attributes:
            listed = [w for w in re.findall("[a-z]+", q.thought.split(": ")[1].split(".")[0]) if len(w) > 1]
            assert listed == [getattr(s, attributes[q.kind]) for s in sorted(q.scene.shapes)]


def test_enumeration_by_hand():
    shapes = (Shape(0, 1, "red", "circle"), Shape(0, 2, "blue", "square"), Shape(2, 0, "red", "square"))
    scene = Scene(shapes)
    assert listing(scene, "colour") == "Looking at the image: a - b red c blue d - e - f - g red h - i -."
    assert (
        listing(scene, "colour", running_count("red"))
        == "Looking at the image: a - b red 1 c blue d - e - f - g red 2 h - i -."
    )
    by_form = "Looking at the image: a - b circle 1 c square 1 d - e - f - g square 2 h - i -."
    assert listing(scene, "form", running_count("circle", "square")) == by_form
    by_share = "Looking at the image: a - b red 1/1 c blue 1/2 d - e - f - g red 2/3 h - i -."
    assert listing(scene, "colour", running_share("red")) == by_share


def test_hand_worked_measures():
    assert latex_fraction(Fraction(6, 16)) == r"\frac{3}{8}"  # 2 x 3 of 16 cells
    assert latex_fraction(Fraction(16, 16)) == "1"
    assert latex_pi(1) == r"\pi"
    assert latex_pi(4) == r"4\pi"  # radius 2: area 2 * 2, circumference 2 * 2
    assert Block(row=1, column=0, height=2, width=3).cells() == {(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)}


def test_circle_measures_the_bar():
    for seed in range(20):
        q = circle(random.Random(seed))
        assert q.scene is not None and (bar := q.scene.block) is not None
        assert min(bar.height, bar.width) == 1
        assert f"the bar is {max(bar.height, bar.width)} long" in q.thought


def test_arithmetic_is_right_and_has_no_image():
    for seed in range(50):
        q = arithmetic(random.Random(seed))
        ((a, sign, b),) = re.findall(r"(\d+) (.) (\d+)", q.text)
        assert int(q.gold) == {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] >= 0
        assert q.scene is None


def test_evidence_is_what_the_answer_is_read_from(questions):
    for q in questions:
        if q.scene is None:
            assert q.cells == ()
            continue
        assert set(q.cells) == cells_read(q) and list(q.cells) == sorted(set(q.cells)), q
        none_seen = (q.kind.startswith("count") and q.gold == "0") or (q.kind == "after_sum" and "I see 0" in q.thought)
        assert bool(q.cells) != none_seen  # where the answer is that there is none, nothing can be pointed at
        if q.kind in ("count_form", "count_colour", "area", "stated"):
            assert len(q.cells) == int(q.gold)


def test_evidence_by_hand():
    # A red circle in the upper right cell (a: 0, b: 1, c: 2), a green square and a red triangle in the last row.
    shapes = (Shape(0, 2, "red", "circle"), Shape(2, 0, "green", "square"), Shape(2, 1, "red", "triangle"))
    question = WorldQuestion("k", "integer", "How many red shapes?", "2", "", Scene(shapes), cells=((0, 2), (2, 1)))
    (row,) = rl_rows([question], "test")
    assert row["extra_info"]["evidence"] == [[[56.0, 0.0, 84.0, 28.0], [28.0, 56.0, 56.0, 84.0]]]
    image = Image.open(io.BytesIO(row["images"][0]["bytes"])).convert("RGB")
    red = {(x, y) for x in range(CANVAS) for y in range(CANVAS) if image.getpixel((x, y)) == COLOURS["red"]}
    boxes = row["extra_info"]["evidence"][0]
    inside = [{(x, y) for x, y in red if x0 <= x < x1 and y0 <= y < y1} for x0, y0, x1, y1 in boxes]
    assert all(inside) and inside[0] | inside[1] == red  # each box has its shape, and no red is anywhere else
