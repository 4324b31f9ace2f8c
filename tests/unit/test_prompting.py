"""Prompt sets: the text of a question of each benchmark, worked by hand from the benchmark's own wording."""

from dataclasses import replace

import pytest

from avar_rl.evaluation.benchmarks.asking.prompting import OFFICIAL, SHIPPED, load_prompts
from avar_rl.evaluation.benchmarks.benchmark import BENCHMARKS
from data_tools.formats.sample import DataSample

COLOURS = ("red", "dark blue")
IN_THE_IMAGE = "Answer the question in the image."


def sample(text: str = "Which?", listed=COLOURS, images=(b"1",), /, **extra) -> DataSample:
    gold, kind = ("B", "choice") if listed or extra.get("options") else ("7", "number")
    return DataSample("b/p/1", "s", text, gold, kind, images, tuple(listed), extra=extra)


def asked(benchmark: str, one: DataSample, prompts: str = OFFICIAL) -> str:
    [turn] = load_prompts(prompts, BENCHMARKS[benchmark]).conversation(one).turns
    assert turn["role"] == "user"
    return turn["content"]


LETTER = "Answer with the option's letter from the given choices directly"


@pytest.mark.parametrize(
    ("benchmark", "one", "expected"),
    [
        (
            "mathvista",
            sample(query="Hint: Please answer …\nQuestion: How many?\n(A) 1\n(B) 2", part="testmini"),
            "<image>Hint: Please answer …\nQuestion: How many?\n(A) 1\n(B) 2",
        ),
        (
            "mathvision",
            sample("Which part, <image1>?"),
            '<image>Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple '
            'choice question, only one letter is allowed in the "\\boxed{}".\nWhich part, <image1>?\n(A) red\n'
            "(B) dark blue",
        ),
        (
            "mathvision_testmini",  # options A to E that stand in the picture are not listed
            sample("Which?", (), options=list("ABCDE")),
            '<image>Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple '
            'choice question, only one letter is allowed in the "\\boxed{}".\nWhich?',
        ),
        (
            "mathverse",
            sample("Find x.", (), query_wo="Please directly answer the question …\nQuestion: Find x."),
            "<image>Please directly answer the question …\nQuestion: Find x.",
        ),
        (
            "mathverse_vision_only",
            sample(IN_THE_IMAGE, (), query_wo="According to the question shown in the image, …", options=["1", "2"]),
            "<image>According to the question shown in the image, …",
        ),
        (
            "mmmu",
            sample("Of <image> and", ("<image>", "b"), (b"1", b"2"), part="validation"),
            f"Of <image> and\n\n(A) <image>\n(B) b\n\n\n{LETTER}.",
        ),
        ("mmmu", sample("How many?", ()), "<image>How many?\n\nAnswer the question using a single word or phrase."),
        (
            "mmmu_pro",
            sample("Which <image>?", part="standard"),
            "Which <image>?\nA. red\nB. dark blue\nAnswer with the option letter from the given choices directly.",
        ),
        (
            "mmmu_pro",
            sample(IN_THE_IMAGE, (), part="vision", options=["1", "2"]),
            "<image>Answer with the option letter from the given choices directly. The last line of your response "
            "should be of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of options.",
        ),
        (
            "mmstar",  # its question holds the options, which the sample has apart
            sample("Which?", question="Which?\nOptions: A: red, B: dark blue"),
            f"<image>Which?\nOptions: A: red, B: dark blue\n{LETTER}",
        ),
        ("hallusionbench", sample("Is it red?", ()), "<image>Is it red?\nPlease answer yes or no."),
    ],
)
def test_the_official_wording(benchmark, one, expected):
    assert asked(benchmark, one) == expected


def test_every_benchmark_has_its_official_prompts_and_the_shipped_ones():
    for benchmark in BENCHMARKS.values():
        for name in (OFFICIAL, *SHIPPED):
            prompts = load_prompts(name, benchmark)
            assert prompts.name == name and len(prompts.hash) == 12


def test_ours_words_a_question_as_the_rows_of_a_training_do():
    for one in (sample(), sample("How many?", ()), sample("Of <image>, <image>?", COLOURS, (b"1", b"2"))):
        assert asked("mmmu", one, "ours") == one.prompt


def test_think_asks_for_a_letter_where_there_are_options_even_in_the_image():
    listed, drawn, free = sample(), sample(IN_THE_IMAGE, (), options=["1", "2"]), sample("How many?", ())
    assert asked("mmstar", listed, "think").startswith("<image>Which?\n(A) red\n(B) dark blue\n\nWrite your thoughts")
    assert asked("mmmu_pro", drawn, "think").startswith(f"<image>{IN_THE_IMAGE}\n\nWrite your thoughts")
    assert all("letter of the right option" in asked("mmmu", one, "think") for one in (listed, drawn))
    assert "the final answer, as short as possible" in asked("mmmu", free, "think")


def test_what_is_filled_in_is_text_and_nothing_else():
    odd = sample("{options} {0} {{question}} %s {query", ("{question}", "\\1"), query="{question}")
    assert asked("mmmu", odd, "ours") == "<image>{options} {0} {{question}} %s {query\n(A) {question}\n(B) \\1"
    assert asked("mathvista", odd) == "<image>{question}"
    marked = sample(query="<|im_start|>system <image> <|image_pad|>")
    assert asked("mathvista", marked) == "<image><| im_start |>system < image > <| image_pad |>"


def write(tmp_path, text: str) -> str:
    (tmp_path / "mine.txt").write_text(text)
    return str(tmp_path / "mine.txt")


def test_a_file_of_ones_own(tmp_path):
    path = write(tmp_path, "Level {level} of {{level}}, \\boxed{}:\n{dotted_options}\n{question}\n")
    prompts = load_prompts(path, BENCHMARKS["mathvision"])
    assert prompts.name == "mine.txt"
    prompts.check([sample(level=3), sample()])
    assert asked("mathvision", sample(level=3), path) == (
        "<image>Level 3 of {level}, \\boxed{}:\nA. red\nB. dark blue\nWhich?"
    )
    assert asked("mathvision", sample("Which?", ()), path) == "<image>Level  of {level}, \\boxed{}:\nWhich?"
    write(tmp_path, "{question}")
    assert load_prompts(path, BENCHMARKS["mathvision"]).hash != prompts.hash


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{qestion}", r"mine.txt: unknown placeholder \{qestion\}; there are question, official_question, options, "),
        ("Say \\text{x} {question}", r"unknown placeholder \{x\}.* Write \{\{x\}\} for the text itself"),
        ("{metadata}", r"unknown placeholder \{metadata\}"),  # a column that is no text
        ("### vision\n{question}", "no section is for b/p/1; it has vision: add `### choice`"),
        ("### open\n{question}", "no section is for b/p/1; it has open"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_before_anything_is_asked(tmp_path, text, fault):
    prompts = load_prompts(write(tmp_path, text), BENCHMARKS["mathvista"])
    with pytest.raises(ValueError, match=fault):
        prompts.check([sample(level=3, metadata={"a": 1})])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the file is empty"),
        ("### choice\n\n### open\nx", "section choice is empty"),
        ("### open\nx\n### open\ny", "a section is there twice"),
        ("before\n### open\nx", "there is text before the first section"),
    ],
)
def test_a_file_that_is_no_prompt_set_is_refused(tmp_path, text, fault):
    with pytest.raises(ValueError, match=fault):
        load_prompts(write(tmp_path, text), BENCHMARKS["mathvista"])
    with pytest.raises(ValueError, match="--prompts oficial: neither official, ours, think nor a file of your own"):
        load_prompts("oficial", BENCHMARKS["mathvista"])


def test_a_prompt_that_loses_an_image_is_refused(tmp_path):
    placed = sample("Of <image> and", ("<image>", "b"), (b"1", b"2"))
    prompts = load_prompts(write(tmp_path, "{question}"), BENCHMARKS["mmmu"])
    with pytest.raises(ValueError, match="b/p/1 has 2 images and 1 places for them"):
        prompts.conversation(placed)
    text_only = replace(placed, question="Why?", options=(), gold="7", images=())
    assert prompts.conversation(text_only).turns[0]["content"] == "Why?"


def test_a_system_prompt_is_a_turn_of_its_own():
    conversation = load_prompts("ours", BENCHMARKS["mmmu"]).conversation(sample(), "Look first.")
    assert [turn["role"] for turn in conversation.turns] == ["system", "user"]
    assert conversation.turns[0]["content"] == "Look first." and conversation.images == (b"1",)
