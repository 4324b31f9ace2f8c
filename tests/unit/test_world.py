import io
import random
import re
from collections.abc import Callable
from fractions import Fraction

import pytest
from PIL import Image

from data_tools.miniature.data import main, make_world
from data_tools.miniature.questions import (
    FAMILIES,
    WorldQuestion,
    _listing,
    _running_count,
    _running_share,
    arithmetic,
    circle,
    family_plan,
    latex_fraction,
    latex_pi,
)
from data_tools.miniature.scenes import CANVAS, CELL, COLOURS, Block, Scene, Shape, render
from data_tools.miniature.world import (
    MAX_LANGUAGE_PRIOR,
    TRAINING_SPLITS,
    WorldConfig,
    language_prior,
    make_questions,
    to_rows,
)

SMALL = WorldConfig(sft_train=900, sft_val=60, rl_train=300, rl_val=60, test=240)


@pytest.fixture(scope="module")
def splits():
    return make_questions(SMALL)


@pytest.fixture(scope="module")
def questions(splits):
    return [question for split in splits.values() for question in split]


def recomputed_gold(q: WorldQuestion) -> str:
    """The gold answer from the scene and the question's text alone, independently of the generator."""
    assert q.scene is not None
    shapes, bar = q.scene.shapes, q.scene.block or Block(0, 0, 0, 0)
    words = q.text.rstrip("?").split()
    match q.kind:
        case "count_form":
            return str(sum(s.form + "s" == words[-1] for s in shapes))
        case "count_colour":
            return str(sum(s.colour == words[2] for s in shapes))
        case "compare":
            counts = [sum(s.form + "s" == word for s in shapes) for word in (words[3], words[5])]
            return "yes" if counts[0] > counts[1] else "no"
        case "shape_share":
            return latex_fraction(Fraction(sum(s.colour == words[-1] for s in shapes), len(shapes)))
        case "position":
            ((line_name, axis),) = re.findall(r"(\w+) (row|column)", q.text)
            line = {"top": 0, "left": 0, "middle": 1, "bottom": 2, "right": 2}[line_name]
            (shape,) = [s for s in shapes if getattr(s, axis) == line]
            return q.text[q.text.index(f") {shape.colour}") - 1]
        case "area":
            return str(len(bar.cells()))
        case "perimeter":
            return str(2 * (bar.height + bar.width))
        case "grid_share":
            return latex_fraction(Fraction(len(bar.cells()), 9))
        case "circle_area":
            return latex_pi(max(bar.height, bar.width) ** 2)
        case "circle_circumference":
            return latex_pi(2 * max(bar.height, bar.width))
    raise AssertionError(q.kind)


def test_golds_follow_from_scene_and_text(questions):
    for question in questions:
        if question.scene:
            assert question.gold == recomputed_gold(question), question


def test_chain_of_thought_anchors_and_ends_in_the_gold_answer(questions):
    for q in questions:
        for glance in (False, True):
            response = q.response(glance=glance)
            assert re.findall(r"^<think>.+</think><answer>(.+)</answer>$", response) == [q.gold]
        assert (q.scene is None) or q.thought.startswith("Looking at the image: ")


def test_choices_have_their_options(questions):
    for q in questions:
        assert bool(q.options) == (q.gold_kind == "choice")
        assert all(f"{letter}) {text}" in q.text for letter, text in zip("ABCD", q.options, strict=bool(q.options)))


def test_a_glance_concludes_without_listing(questions):
    for q in questions:
        enumerates = q.kind in ("count_form", "count_colour", "compare", "shape_share", "position")
        assert (q.glance is not None) == enumerates
        if enumerates:
            assert q.glance.startswith("Glancing at the image: ") and ";" not in q.glance
            assert "Looking" not in q.response(glance=True)
        else:
            assert q.response(glance=True) == q.response()


def test_share_of_glances_in_the_chat_rows(splits):
    two = [q for q in splits["sft_train"] if q.glance]

    def glances(share: float) -> int:
        config = WorldConfig(glance_share=share)
        return sum("Glancing" in row["messages"][1]["content"] for row in to_rows(two, "sft_train", config))

    assert (glances(0.0), glances(1.0)) == (0, len(two))
    assert abs(glances(0.4) - 0.4 * len(two)) < 4 * (0.24 * len(two)) ** 0.5  # four standard deviations
    with pytest.raises(ValueError, match=r"glance share must be in \[0, 1\], not 1.5"):
        WorldConfig(glance_share=1.5)


def test_enumeration_lists_the_scene_in_reading_order(questions):
    attributes = dict(count_form="form", compare="form", count_colour="colour", shape_share="colour", position="colour")
    for q in questions:
        if q.kind in attributes:
            listed = [w for w in re.findall("[a-z]+", q.thought.split(": ")[1].split(".")[0]) if len(w) > 1]
            assert listed == [getattr(s, attributes[q.kind]) for s in sorted(q.scene.shapes)]


def test_enumeration_by_hand():
    shapes = (Shape(0, 1, "red", "circle"), Shape(0, 2, "blue", "square"), Shape(2, 0, "red", "square"))
    scene = Scene(shapes)
    assert _listing(scene, "colour") == "Looking at the image: a - b red c blue d - e - f - g red h - i -."
    assert (
        _listing(scene, "colour", _running_count("red"))
        == "Looking at the image: a - b red 1 c blue d - e - f - g red 2 h - i -."
    )
    by_form = "Looking at the image: a - b circle 1 c square 1 d - e - f - g square 2 h - i -."
    assert _listing(scene, "form", _running_count("circle", "square")) == by_form
    by_share = "Looking at the image: a - b red 1/1 c blue 1/2 d - e - f - g red 2/3 h - i -."
    assert _listing(scene, "colour", _running_share("red")) == by_share


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


def test_all_gold_kinds_and_families_in_test(splits):
    golds = {question.gold_kind for question in splits["test"]}
    assert golds == {"integer", "fraction", "expression", "choice", "yes/no"}
    kinds = {question.kind for question in splits["test"]}
    assert {"count_form", "count_colour", "compare", "shape_share", "position", "perimeter", "grid_share"} <= kinds


def test_text_only_rows_in_training_splits_only(splits):
    for name, chosen in splits.items():
        text_only = sum(q.scene is None for q in chosen)
        # 6 % of 900 = 54, of 300 = 18
        assert text_only == {"sft_train": 54, "rl_train": 18}.get(name, 0)


def test_family_plan_has_exact_shares():
    plan = family_plan(random.Random(0), 1000, text_share=0.0)
    assert {family: plan.count(family) for family in FAMILIES} == {f: round(1000 * s) for f, s in FAMILIES.items()}
    assert sum(FAMILIES.values()) == pytest.approx(1.0)


def test_no_scene_is_in_two_splits(splits):
    keys = [question.scene or question.text for chosen in splits.values() for question in chosen]
    assert len(keys) == len(set(keys))


def test_equal_seeds_give_equal_rows_and_others_do_not(splits):
    again = make_questions(SMALL)
    assert again == splits
    assert to_rows(again["test"][:5], "test", SMALL) == to_rows(splits["test"][:5], "test", SMALL)
    other = make_questions(WorldConfig(seed=1, sft_train=9, sft_val=9, rl_train=9, rl_val=9, test=240))
    assert other["test"] != splits["test"]


def test_held_out_rows_do_not_depend_on_training_size(splits):
    fewer = make_questions(WorldConfig(sft_train=10, sft_val=60, rl_train=10, rl_val=60, test=240))
    assert fewer["test"] == splits["test"]


def test_language_prior_is_low(splits):
    train = [q for split in TRAINING_SPLITS for q in splits[split]]
    assert 0.1 < language_prior(train, splits["test"]) < MAX_LANGUAGE_PRIOR


def test_language_prior_by_hand():
    def asked(text: str, gold: str) -> WorldQuestion:
        return WorldQuestion("k", "integer", text, gold, "", Scene((Shape(0, 0, "red", "circle"),)))

    train = [asked("a", "1"), asked("a", "1"), asked("a", "2"), asked("b", "3")]
    # a -> 1 (right once of two), b -> 3 (wrong), unseen c -> 1, the most frequent overall (right): 2 of 4
    test = [asked("a", "1"), asked("a", "2"), asked("b", "1"), asked("c", "1")]
    assert language_prior(train, test) == 0.5


def test_a_guessable_world_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.miniature.data.MAX_LANGUAGE_PRIOR", 0.01)
    with pytest.raises(ValueError, match="language prior on test is"):
        make_world(WorldConfig(sft_train=50, sft_val=5, rl_train=20, rl_val=5, test=50), tmp_path)
    assert not list(tmp_path.iterdir())


def test_render_puts_each_shape_into_its_own_cell():
    scene = Scene((Shape(0, 2, "red", "square"), Shape(1, 1, "blue", "circle")), Block(2, 0, 1, 2))
    image = Image.open(io.BytesIO(render(scene)))
    assert image.size == (CANVAS, CANVAS) == (84, 84)
    middle = {(r, c): image.getpixel((c * CELL + 14, r * CELL + 14)) for r in range(3) for c in range(3)}
    assert middle[0, 2] == COLOURS["red"] and middle[1, 1] == COLOURS["blue"]
    assert middle[2, 0] == middle[2, 1] == (245, 245, 245)
    # The board is (122, 116, 104) in the middle; red changes by 40 a row, blue by 40 a column.
    assert middle[0, 0] == (82, 116, 64) and middle[0, 1] == (82, 116, 104)
    assert middle[1, 0] == (122, 116, 64) and middle[1, 2] == (122, 116, 144) and middle[2, 2] == (162, 116, 144)


@pytest.mark.parametrize(
    ("shapes", "block", "fault"),
    [
        ((Shape(0, 0, "red", "circle"), Shape(0, 0, "red", "square")), None, "two things in one cell"),
        ((Shape(1, 1, "red", "circle"),), Block(1, 1, 1, 1), "two things in one cell"),
        ((Shape(0, 4, "red", "circle"),), None, "outside"),
        ((Shape(1, 0, "red", "circle"), Shape(0, 0, "red", "circle")), None, "reading order"),
    ],
)
def test_impossible_scenes_are_refused(shapes, block, fault):
    with pytest.raises(ValueError, match=fault):
        Scene(shapes, block)


@pytest.mark.parametrize("wrong", [{"test": 0}, {"text_share": 1.0}, {"text_share": -0.1}])
def test_config_refuses(wrong):
    with pytest.raises(ValueError, match="must be"):
        WorldConfig(**wrong)


def test_command_line_writes_all_files_and_reports(tmp_path, capsys):
    argv = ["--sft-rows", "300", "--rl-rows", "100", "--test-rows", "100", "--sft-val-rows", "8", "--rl-val-rows", "8"]
    assert main(["--out", str(tmp_path / "world"), *argv]) == 0
    names = {path.name for path in (tmp_path / "world").iterdir()}
    assert names == {f"{split}.parquet" for split in ("sft_train", "sft_val", "rl_train", "rl_val", "test")}
    printed = capsys.readouterr().out
    assert "language prior on test" in printed and "yes/no" in printed
    assert main(["--out", str(tmp_path / "none"), "--test-rows", "0"]) == 2
    assert capsys.readouterr().err == "error: rows of test must be at least 1, not 0\n"


def test_rl_rows_say_source_kind_and_gold(splits):
    question = next(q for q in splits["test"] if q.kind == "position")
    (row,) = to_rows([question], "test", SMALL)
    assert row["data_source"] == "tiny_world" and row["reward_model"]["ground_truth"] == question.gold
    assert row["prompt"] == [{"role": "user", "content": f"<image>{question.text}"}]
    assert row["extra_info"] == {
        "index": 0,
        "split": "test",
        "id": "test-00000",
        "kind": "position",
        "gold_kind": "choice",
        "question": question.text,
        "options": ["red", "green", "blue", "yellow"],
        "other_golds": [],
        "evidence": [[list(map(float, box_of(*cell))) for cell in question.cells]],
    }
    (text_only,) = to_rows([arithmetic(random.Random(0))], "rl_val", SMALL)
    assert text_only["extra_info"]["evidence"] == []


def box_of(row: int, column: int) -> tuple[int, int, int, int]:
    return 28 * column, 28 * row, 28 * column + 28, 28 * row + 28


def cells_read(q: WorldQuestion) -> set[tuple[int, int]]:
    """The cells of the answer, from the scene and the question's text alone."""
    assert q.scene is not None
    words, cells = q.text.rstrip("?").split(), {(s.row, s.column): s for s in q.scene.shapes}
    wanted: dict[str, Callable[[Shape], bool]] = {
        "count_form": lambda s: s.form + "s" == words[-1],
        "count_colour": lambda s: s.colour == words[2],
        "compare": lambda s: s.form + "s" in (words[3], words[5]),
        "shape_share": lambda s: True,
        "position": lambda s: (
            f"{('top', 'middle', 'bottom')[s.row]} row" in q.text
            or f"{('left', 'middle', 'right')[s.column]} column" in q.text
        ),
    }
    if q.kind in wanted:
        return {cell for cell, shape in cells.items() if wanted[q.kind](shape)}
    return q.scene.block.cells()


def test_evidence_is_what_the_answer_is_read_from(questions):
    for q in questions:
        if q.scene is None:
            assert q.cells == ()
            continue
        assert set(q.cells) == cells_read(q) and list(q.cells) == sorted(set(q.cells)), q
        nothing = q.kind.startswith("count") and q.gold == "0"
        assert bool(q.cells) != nothing  # where the answer is that there is none, nothing can be pointed at
        if q.kind in ("count_form", "count_colour", "area"):
            assert len(q.cells) == int(q.gold)


def test_evidence_by_hand():
    # A red circle in the upper right cell (a: 0, b: 1, c: 2), a green square and a red triangle in the last row.
    shapes = (Shape(0, 2, "red", "circle"), Shape(2, 0, "green", "square"), Shape(2, 1, "red", "triangle"))
    question = WorldQuestion("k", "integer", "How many red shapes?", "2", "", Scene(shapes), cells=((0, 2), (2, 1)))
    (row,) = to_rows([question], "test", SMALL)
    assert row["extra_info"]["evidence"] == [[[56.0, 0.0, 84.0, 28.0], [28.0, 56.0, 56.0, 84.0]]]
    image = Image.open(io.BytesIO(row["images"][0]["bytes"])).convert("RGB")
    red = {(x, y) for x in range(CANVAS) for y in range(CANVAS) if image.getpixel((x, y)) == COLOURS["red"]}
    boxes = row["extra_info"]["evidence"][0]
    inside = [{(x, y) for x, y in red if x0 <= x < x1 and y0 <= y < y1} for x0, y0, x1, y1 in boxes]
    assert all(inside) and inside[0] | inside[1] == red  # each box has its shape, and no red is anywhere else
