"""pass@k and the majority's answer, by hand."""

import pytest

from avar_rl.evaluation.benchmarks.scoring.votes import majority, numbers_to_pass, pass_at


@pytest.mark.parametrize(
    ("k", "right", "drawn", "chance"),
    [
        (1, 0, 4, 0.0),
        (1, 1, 4, 0.25),
        (2, 1, 4, 0.5),  # 1 - C(3,2)/C(4,2) = 1 - 3/6
        (2, 2, 4, 5 / 6),  # 1 - 1/6
        (4, 1, 4, 1.0),
        (3, 2, 4, 1.0),  # no 3 of 4 without one of 2
        (4, 0, 4, 0.0),
        (1, 4, 4, 1.0),
    ],
)
def test_pass_at_k(k, right, drawn, chance):
    assert pass_at(k, right, drawn) == pytest.approx(chance)


def test_numbers_to_pass():
    assert [numbers_to_pass(n) for n in (1, 2, 3, 4, 6, 8)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4],
        [1, 2, 4, 6],
        [1, 2, 4, 8],
    ]


@pytest.mark.parametrize(
    ("answers", "place"),
    [
        (["A", "B", "B"], 1),
        (["B", "A", "A", "B"], 0),  # as often: the first
        (["x = 5", "X=5", "A"], 0),  # without case and spaces
        ([None, None, "A"], 2),  # no answer has no vote
        ([None, None], None),
        (["", "A"], 1),
        ([], None),
    ],
)
def test_majority(answers, place):
    assert majority(answers) == place
