"""The miniature world's splits, its language prior, its pictures and its command."""

import io
import random

import pytest
from PIL import Image

from data_tools.miniature.data import main, make_world
from data_tools.miniature.families import FAMILIES, family_plan
from data_tools.miniature.questions import WorldQuestion, arithmetic
from data_tools.miniature.scenes import CANVAS, CELL, COLOURS, Block, Scene, Shape, render
from data_tools.miniature.world import (
    MAX_LANGUAGE_PRIOR,
    TRAINING_SPLITS,
    WorldConfig,
    files_of,
    language_prior,
    make_questions,
    rl_rows,
)
from tests.unit.small_world import SMALL, small_world


@pytest.fixture(scope="module")
def splits():
    return small_world()


def test_all_gold_kinds_and_families_in_test(splits):
    golds = {question.gold_kind for question in splits["test"]}
    assert golds == {"integer", "fraction", "expression", "choice", "yes/no"}
    kinds = {question.kind for question in splits["test"]}
    assert {"count_form", "count_colour", "compare", "shape_share", "position", "perimeter", "grid_share"} <= kinds
    assert {"stated", "usual", "unusual", "one_cell", "beside", "after_sum"} <= kinds


def test_text_only_rows_in_training_splits_only(splits):
    for name, chosen in splits.items():
        text_only = sum(q.scene is None for q in chosen)
        # 6 % of 1000 = 60, of 900 = 54, of 300 = 18
        assert text_only == {"pretrain": 60, "sft_train": 54, "rl_train": 18}.get(name, 0)


def test_every_split_has_as_many_questions_as_asked_for(splits):
    sizes = {"test": 240, "rl_val": 60, "sft_val": 60, "rl_train": 300, "sft_train": 900, "pretrain": 1000}
    assert {name: len(chosen) for name, chosen in splits.items()} == sizes


def test_family_plan_has_exact_shares():
    plan = family_plan(random.Random(0), 1000, text_share=0.0)
    assert {family: plan.count(family) for family in FAMILIES} == {f: round(1000 * s) for f, s in FAMILIES.items()}
    assert sum(FAMILIES.values()) == pytest.approx(1.0)


def test_no_scene_is_there_twice_in_one_split_or_in_two(splits):
    scenes = [question.scene for chosen in splits.values() for question in chosen if question.scene]
    assert len(scenes) == len(set(scenes)) == 240 + 60 + 60 + 282 + 846 + 940


def test_equal_seeds_give_equal_rows_and_others_do_not(splits):
    again = make_questions(SMALL)
    assert again == splits
    for split in splits:
        assert files_of(split, again[split][:5], SMALL) == files_of(split, splits[split][:5], SMALL)
    other = make_questions(WorldConfig(seed=1, pretrain=9, sft_train=9, sft_val=9, rl_train=9, rl_val=9, test=240))
    assert other["test"] != splits["test"]


def test_held_out_rows_do_not_depend_on_training_size(splits):
    fewer = make_questions(WorldConfig(pretrain=10, sft_train=10, sft_val=60, rl_train=10, rl_val=60, test=240))
    assert fewer["test"] == splits["test"]


def test_language_prior_is_low(splits):
    train = [q for split in TRAINING_SPLITS for q in splits[split]]
    assert 0.1 < language_prior(train, splits["test"]) < MAX_LANGUAGE_PRIOR


def asked(text: str, gold: str, need: str = "board") -> WorldQuestion:
    return WorldQuestion("k", "integer", text, gold, "", Scene((Shape(0, 0, "red", "circle"),)), need=need)


def test_language_prior_by_hand():
    train = [asked("a", "1"), asked("a", "1"), asked("a", "2"), asked("b", "3")]
    # a -> 1 (right once of two), b -> 3 (wrong), unseen c -> 1, the most frequent overall (right): 2 of 4
    test = [asked("a", "1"), asked("a", "2"), asked("b", "1"), asked("c", "1")]
    assert language_prior(train, test) == 0.5


def test_the_language_prior_leaves_out_what_needs_no_look():
    train, test = [asked("a", "1"), asked("b", "2")], [asked("a", "1"), asked("b", "1")]  # b is wrong: 1 of 2
    for need in ("nothing", "prior"):
        easy = [asked("c", "3", need)] * 5
        assert language_prior(train + easy, test + easy) == 0.5
        with pytest.raises(ValueError, match="the training questions hold no image question"):
            language_prior(easy, test)
        with pytest.raises(ValueError, match="the test questions hold no image question"):
            language_prior(train, easy)


def test_a_guessable_world_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.miniature.data.MAX_LANGUAGE_PRIOR", 0.01)
    with pytest.raises(ValueError, match="language prior on test is"):
        make_world(WorldConfig(pretrain=50, sft_train=50, sft_val=5, rl_train=20, rl_val=5, test=50), tmp_path)
    assert not list(tmp_path.iterdir())


def test_render_puts_each_shape_into_its_own_cell():
    scene = Scene((Shape(0, 2, "red", "square"), Shape(1, 1, "blue", "circle")), Block(2, 0, 1, 2))
    image = Image.open(io.BytesIO(render(scene)))
    assert image.size == (CANVAS, CANVAS) == (84, 84)
    middle = {(r, c): image.getpixel((c * CELL + 14, r * CELL + 14)) for r in range(3) for c in range(3)}
    assert middle[0, 2] == COLOURS["red"]
    assert middle[2, 0] == middle[2, 1] == (245, 245, 245)
    # A circle is white in its middle, a square has a black edge; each begins 3 pixels from its cell's.
    assert middle[1, 1] == (245, 245, 245) and image.getpixel((28 + 14, 28 + 6)) == COLOURS["blue"]
    assert [image.getpixel((56 + x, 14)) for x in (3, 5, 6)] == [(0, 0, 0), (0, 0, 0), COLOURS["red"]]
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


@pytest.mark.parametrize(
    "wrong", [{"test": 0}, {"pretrain": 0}, {"text_share": 1.0}, {"text_share": -0.1}, {"words_share": 2.0}]
)
def test_config_refuses(wrong):
    with pytest.raises(ValueError, match="must be"):
        WorldConfig(**wrong)


def test_command_line_writes_all_files_and_reports(tmp_path, capsys):
    argv = ["--pretrain-rows", "200", "--sft-rows", "300", "--rl-rows", "100", "--test-rows", "100"]
    argv += ["--sft-val-rows", "8", "--rl-val-rows", "8"]
    assert main(["--out", str(tmp_path / "world"), *argv]) == 0
    names = {path.name for path in (tmp_path / "world").iterdir()}
    cold_start = {f"{split}{form}" for split in ("sft_train", "sft_val") for form in ("", "_unanchored", "_words")}
    assert names == {f"{name}.parquet" for name in {"pretrain", "rl_train", "rl_val", "test"} | cold_start}
    printed = capsys.readouterr().out
    assert "language prior on test" in printed and "yes/no" in printed
    assert main(["--out", str(tmp_path / "none"), "--test-rows", "0"]) == 2
    assert capsys.readouterr().err == "error: rows of test must be at least 1, not 0\n"


def test_rl_rows_say_source_kind_and_gold(splits):
    question = next(q for q in splits["test"] if q.kind == "position")
    (row,) = rl_rows([question], "test")
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
    (text_only,) = rl_rows([arithmetic(random.Random(0))], "rl_val")
    assert text_only["extra_info"]["evidence"] == []


def box_of(row: int, column: int) -> tuple[int, int, int, int]:
    return 28 * column, 28 * row, 28 * column + 28, 28 * row + 28
