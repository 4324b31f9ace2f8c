"""The registry of benchmarks, and what it says of the paper's seven."""

import pytest

from avar_rl.evaluation.benchmarks.benchmark import BENCHMARKS, chosen, find
from data_tools.formats.sample import DataSample, known_options


def test_the_papers_seven_ask_11639_questions():
    seven = chosen(["all"])
    assert [(b.name, b.n) for b in seven] == [
        ("mathvista", 1000),
        ("mathvision", 3040),
        ("mathverse_vision_only", 788),
        ("mmmu", 900),
        ("mmmu_pro", 3460),
        ("mmstar", 1500),
        ("hallusionbench", 951),
    ]
    assert sum(b.n for b in seven) == 11_639


def test_an_unknown_benchmark_is_told_which_there_are():
    with pytest.raises(ValueError, match="unknown benchmark 'mathvsta'; known are mathvista, mathvision, .*all for"):
        find("mathvsta")
    with pytest.raises(ValueError, match="unknown benchmark ''"):
        chosen(["all", ""])


def test_a_benchmark_named_twice_is_chosen_once_in_the_order_given():
    assert [b.name for b in chosen(["mmstar", "mathverse", "mmstar"])] == ["mmstar", "mathverse"]
    assert len(chosen(["mathverse", "all"])) == 8 and find("mathverse") is BENCHMARKS["mathverse"]


def test_options_in_the_image_are_known_but_not_written():
    asked = DataSample(
        id="a", source="s", question="?", gold="B", gold_kind="choice", images=(b"",), extra={"options": ["x", "y"]}
    )
    assert known_options(asked) == ("x", "y") and "x" not in asked.prompt
    plain = DataSample(id="a", source="s", question="?", gold="B", gold_kind="choice", options=("u", "v"))
    assert known_options(plain) == ("u", "v")
