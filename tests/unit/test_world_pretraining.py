"""What the miniature's base is pre-trained on, and the three forms of its cold start."""

import pytest

from data_tools.miniature.pretraining import CAPTIONS, about_image, caption, in_words
from data_tools.miniature.questions import WorldQuestion, without_anchors
from data_tools.miniature.scenes import Block, Scene, Shape
from data_tools.miniature.world import WorldConfig, cold_start_rows, files_of, pretraining_rows
from tests.unit.small_world import SMALL, small_world

# a - b red circle c - d blue square e - f - g white h white i -
SCENE = Scene((Shape(0, 1, "red", "circle"), Shape(1, 0, "blue", "square")), Block(2, 0, 1, 2))
THOUGHT = "Looking at the image: a - b red 1 c - d blue e - f - g - h - i -. I see 1 red."
QUESTION = WorldQuestion("k", "integer", "How many red shapes?", "1", THOUGHT, SCENE, "Glancing at the image: I see 1.")
SUM = WorldQuestion("k", "integer", "What is 1 + 2?", "3", "1 + 2 = 3.", None, need="nothing")


@pytest.fixture(scope="module")
def pretraining():
    return pretraining_rows(small_world()["pretrain"], SMALL)


def turns(row: dict) -> tuple[str, str]:
    asked, answered = row["messages"]
    return asked["content"], answered["content"]


def test_captions_by_hand():
    assert caption(SCENE, CAPTIONS["Describe the image."]) == (
        "a - b red circle c - d blue square e - f - g white h white i -."
    )
    assert caption(SCENE, CAPTIONS["Name the colours."]) == "a - b red c - d blue e - f - g white h white i -."
    assert caption(SCENE, CAPTIONS["Name the forms."]) == "a - b circle c - d square e - f - g white h white i -."


def test_a_question_about_a_board_in_words_by_hand():
    board = "a - b red circle c - d blue square e - f - g white h white i -. How many red shapes?"
    thought = "Looking at the text: a - b red 1 c - d blue e - f - g - h - i -. I see 1 red."
    assert in_words(QUESTION) == (board, f"<think>{thought}</think><answer>1</answer>")
    assert in_words(QUESTION, glance=True)[1] == "<think>Glancing at the text: I see 1.</think><answer>1</answer>"
    assert in_words(SUM) == ("What is 1 + 2?", "<think>1 + 2 = 3.</think><answer>3</answer>")


def test_a_turn_about_an_image_is_a_bare_answer_or_a_caption():
    import random

    assert about_image(QUESTION, random.Random(0), answer_share=1.0) == ("How many red shapes?", "<answer>1</answer>")
    said = {about_image(QUESTION, random.Random(seed), answer_share=0.0) for seed in range(20)}
    assert said == {(text, caption(SCENE, attributes)) for text, attributes in CAPTIONS.items()}


def test_shares_of_words_answers_and_captions(pretraining):
    boards = [row for row, q in zip(pretraining, small_world()["pretrain"], strict=True) if q.scene]
    shown = [row for row in boards if row["images"]]
    answers = [row for row in shown if turns(row)[1].startswith("<answer>")]
    captions = [row for row in shown if turns(row)[0].removeprefix("<image>") in CAPTIONS]
    assert len(answers) + len(captions) == len(shown)

    def expected(count: int, n: int, share: float) -> bool:
        return abs(count - share * n) < 4 * (share * (1 - share) * n) ** 0.5  # four standard deviations

    assert expected(len(boards) - len(shown), len(boards), 0.3)  # in words
    assert expected(len(answers), len(shown), 0.3)
    for text in CAPTIONS:
        assert expected(sum(turns(row)[0] == f"<image>{text}" for row in captions), len(captions), 1 / 3)


def test_shares_of_all_and_nothing():
    some = small_world()["pretrain"][:60]
    words = pretraining_rows(some, WorldConfig(words_share=1.0))
    assert not any(row["images"] for row in words) and all("<think>" in turns(row)[1] for row in words)
    answers = pretraining_rows(some, WorldConfig(words_share=0.0, answer_share=1.0))
    for row, q in zip(answers, some, strict=True):
        if q.scene:
            assert turns(row) == (f"<image>{q.text}", f"<answer>{q.gold}</answer>")


def test_the_base_has_seen_no_chain_of_thought_about_an_image(pretraining):
    for row, q in zip(pretraining, small_world()["pretrain"], strict=True):
        asked, answered = turns(row)
        assert ("<think>" in answered) == (not row["images"])
        assert asked.startswith("<image>") == bool(row["images"]) and "the image:" not in answered
        if not row["images"]:
            assert (asked, answered) == in_words(q)


def test_three_forms_of_a_cold_start_by_hand():
    forms = cold_start_rows([QUESTION, SUM], "sft_val", WorldConfig(glance_share=0.0))
    assert list(forms) == ["sft_val", "sft_val_unanchored", "sft_val_words"]
    with_image, text_only = zip(*forms.values(), strict=True)
    assert [row["id"] for row in with_image] == ["sft_val-00000", "sft_val_unanchored-00000", "sft_val_words-00000"]
    assert [len(row["images"]) for row in with_image] == [1, 1, 0]
    assert with_image[0]["images"] == with_image[1]["images"]
    said = f"<think>{THOUGHT}</think><answer>1</answer>"
    assert [turns(row) for row in with_image] == [
        ("<image>How many red shapes?", said),
        ("<image>How many red shapes?", said.replace("Looking at the image: ", "")),
        in_words(QUESTION),
    ]
    assert {turns(row) for row in text_only} == {("What is 1 + 2?", "<think>1 + 2 = 3.</think><answer>3</answer>")}


def test_the_forms_of_a_cold_start_have_the_same_thoughts_in_the_same_order():
    forms = list(cold_start_rows(small_world()["sft_train"], "sft_train", SMALL).values())
    glances = 0
    for q, *rows in zip(small_world()["sft_train"], *forms, strict=True):
        anchored, unanchored, words = (turns(row)[1] for row in rows)
        glance = "Glancing" in anchored
        glances += glance
        assert len({row["id"].rpartition("-")[2] for row in rows}) == 1
        assert anchored == q.response(glance=glance) and unanchored == without_anchors(anchored)
        assert words == in_words(q, glance=glance)[1]
    two = sum(q.glance is not None for q in small_world()["sft_train"])
    assert abs(glances - 0.5 * two) < 4 * (0.25 * two) ** 0.5  # four standard deviations


def test_share_of_glances_in_the_chat_rows():
    two = [q for q in small_world()["sft_train"] if q.glance][:200]

    def glances(share: float) -> int:
        rows = cold_start_rows(two, "sft_train", WorldConfig(glance_share=share))["sft_train"]
        return sum("Glancing" in turns(row)[1] for row in rows)

    assert (glances(0.0), glances(1.0)) == (0, 200)
    assert abs(glances(0.4) - 0.4 * 200) < 4 * (0.24 * 200) ** 0.5  # four standard deviations
    with pytest.raises(ValueError, match=r"glance share must be in \[0, 1\], not 1.5"):
        WorldConfig(glance_share=1.5)


def test_the_files_of_a_split():
    few = {split: questions[:3] for split, questions in small_world().items()}
    files = [name for split, questions in few.items() for name in files_of(split, questions, SMALL)]
    cold_start = [f"{split}{form}" for split in ("sft_val", "sft_train") for form in ("", "_unanchored", "_words")]
    assert sorted(files) == sorted(["pretrain", "test", "rl_val", "rl_train", *cold_start])
    assert all(len(rows) == 3 for split, some in few.items() for rows in files_of(split, some, SMALL).values())
