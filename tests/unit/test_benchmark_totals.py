"""The figures of benchmarks on small tables worked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from avar_rl.evaluation.benchmarks.benchmark import find
from avar_rl.evaluation.benchmarks.scoring.scored import scored_set
from avar_rl.evaluation.benchmarks.scoring.totals import compared, figures, mean_of
from tests.unit.benchmark_questions import asked, line

# HallusionBench, two sets; rows: category, subcategory, set, figure, question, right.
#   VD chart 0: figure 0 has questions 0 right, 1 right; figure 1 has questions 0 right, 1 wrong
#   VS map 0 (another set, though of the same number): figure 1 has questions 0 wrong, 1 right
HALLUSION = [
    ("VD", "chart", "0", "0", "0", True),
    ("VD", "chart", "0", "0", "1", True),
    ("VD", "chart", "0", "1", "0", True),
    ("VD", "chart", "0", "1", "1", False),
    ("VS", "map", "0", "1", "0", False),
    ("VS", "map", "0", "1", "1", True),
]


def hallusion():
    names = ("category", "subcategory", "set_id", "figure_id", "question_id")
    rows = [dict(zip(names, row, strict=False)) | {"gt_answer": "1", "visual_input": "1"} for row in HALLUSION]
    samples = [
        asked("yes", id_="-".join(map(str, row[:5])), **extra) for row, extra in zip(HALLUSION, rows, strict=True)
    ]
    return samples, [line(sample.id, row[-1]) for sample, row in zip(samples, HALLUSION, strict=True)]


def records(scored, **more):
    return [{"id": s["id"], "sample": s["sample"], "tokens": 10, "truncated": False} | more for s in scored]


def test_hallusionbench_by_hand():
    samples, scored = hallusion()
    found = figures(scored_set(find("hallusionbench"), samples, scored), records(scored), {"limit": None})
    metrics = {name: one["value"] for name, one in found["columns"]["official"]["headline"].items()}
    # aAcc 4 of 6. Figures: (VD chart 0 0) all right, (VD chart 0 1) not, (VS map 0 1) not: 1 of 3.
    # Pairs: (VD chart 0, 0) is right on both figures, (VD chart 0, 1) not; (VS map 0, 0) not, (VS map 0, 1): 2 of 4.
    assert metrics == pytest.approx(
        {"aAcc": 4 / 6, "fAcc": 1 / 3, "qAcc": 2 / 4, "mean of aAcc, fAcc, qAcc": (4 / 6 + 1 / 3 + 2 / 4) / 3}
    )
    assert next(iter(metrics)) == "mean of aAcc, fAcc, qAcc"
    assert found["limited"] and (found["n"], found["official_n"]) == (6, 951)
    assert found["groups"]["category"]["VS"]["n"] == 2
    assert found["groups"]["category"]["VS"]["official"] == {"accuracy": 0.5, "interval": None}  # all in one set


def test_clusters_are_the_sets():
    samples, scored = hallusion()
    results = scored_set(find("hallusionbench"), samples, scored)
    assert results.clusters.tolist() == [0, 0, 0, 0, 1, 1]


def test_mmmu_pro_has_both_settings():
    samples = [
        asked("A", id_=f"mmmu_pro/{part}/{n}", part=part, id=str(n))
        for part in ("standard", "vision")
        for n in range(4)
    ]
    right = [True, True, True, False, True, False, False, False]
    scored = [line(sample.id, yes) for sample, yes in zip(samples, right, strict=True)]
    results = scored_set(find("mmmu_pro"), samples, scored)
    found = figures(results, records(scored), {"limit": 4})["columns"]["ours"]
    assert {name: one["value"] for name, one in found["headline"].items()} == {
        "mean of both settings": 0.5,
        "standard": 0.75,
        "vision": 0.25,
    }
    assert results.clusters.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]  # a question in both settings


def test_mmstar_has_both_averages():
    samples = [asked("A", id_=str(n), category="math", l2_category="few" if n == 0 else "many") for n in range(5)]
    scored = [line(sample.id, sample.id != "0") for sample in samples]
    found = figures(scored_set(find("mmstar"), samples, scored), records(scored), {"limit": 5})["columns"]["official"]
    # all: 4 of 5; of the two categories 0 and 1
    assert {name: one["value"] for name, one in found["headline"].items()} == {
        "all questions": 0.8,
        "mean of the 18 categories (l2)": 0.5,
    }


def mathvista(right_of_each, samples=()):
    """Questions with a greedy response each, and `samples`: of each question, the verdicts on those drawn."""
    asked_of = [asked("5", id_=f"q{n}", task="a" if n % 2 else "b") for n in range(len(right_of_each))]
    scored = [line(f"q{n}", right) for n, right in enumerate(right_of_each)]
    scored += [line(f"q{n}", yes, k, str(yes)) for n, drawn in enumerate(samples) for k, yes in enumerate(drawn)]
    return asked_of, scored


def test_samples():
    asked_of, scored = mathvista([True, False], [[True, False, True], [False, False, True]])
    found = figures(scored_set(find("mathvista"), asked_of, scored), records(scored), {"limit": 2})["columns"]["ours"]
    assert found["accuracy"] == 0.5 and not found["headline"]
    assert found["avg_at_k"]["value"] == 0.5  # 3 of 6
    # pass@2: 2 of 3 right: 1 - 0/3 = 1; 1 of 3 right: 1 - 1/3 = 2/3
    assert found["pass_at_k"]["by_k"]["pass@2"]["value"] == pytest.approx(5 / 6)
    assert found["pass_at_k"]["value"] == 1.0 and list(found["pass_at_k"]["by_k"]) == ["pass@1", "pass@2", "pass@3"]
    assert found["majority"]["value"] == 0.5  # True, True; False, False


def test_undecided_and_failed_are_not_right_and_counted():
    asked_of, scored = mathvista([True, None, False])
    scored[2]["official"] |= {"parsed": False, "answer": None}
    for one, failed in zip(scored, (False, True, False), strict=True):
        one["judge"] = {"right": None if failed else True, "answer": "5", "failed": failed}
    found = figures(scored_set(find("mathvista"), asked_of, scored), records(scored, truncated=True), {"limit": 3})
    assert found["columns"]["ours"]["accuracy"] == pytest.approx(1 / 3)
    assert found["columns"]["judge"]["accuracy"] == pytest.approx(2 / 3)
    assert found["counts"] == {"unparsed": 1, "undecided": 1, "judge_failed": 1, "truncated": 3}
    assert found["tokens"] == {"mean": 10.0, "quartiles": [10.0, 10.0, 10.0], "max": 10}


def test_a_question_without_a_response():
    asked_of, scored = mathvista([True, True])
    with pytest.raises(ValueError, match="mathvista: 1 of 2 questions, such as q1, lack responses"):
        scored_set(find("mathvista"), asked_of, scored[:1])
    with pytest.raises(ValueError, match="other questions than the 1 asked"):
        scored_set(find("mathvista"), asked_of[:1], scored)


def test_only_samples():
    asked_of, scored = mathvista([], [])
    asked_of, _ = mathvista([True, True])
    scored = [line(f"q{n}", n == k, k) for n in range(2) for k in range(2)]
    found = figures(scored_set(find("mathvista"), asked_of, scored), records(scored), {"limit": 2})
    assert found["columns"]["official"]["accuracy"] == 0.5


def test_groups_are_by_value():
    asked_of, scored = mathvista([True, False, True, True])
    found = figures(scored_set(find("mathvista"), asked_of, scored), records(scored), {"limit": 4})["groups"]
    assert {key: (one["n"], one["ours"]["accuracy"]) for key, one in found["task"].items()} == {
        "a": (2, 0.5),
        "b": (2, 1.0),
    }
    assert found.keys() == {"task"}  # what the questions do not have is no group


def test_compared():
    asked_of, before = mathvista([True] * 50 + [False] * 50)
    _, after = mathvista([True] * 60 + [False] * 40)
    sets = [scored_set(find("mathvista"), asked_of, lines) for lines in (before, after)]
    found = compared(*sets)["official"]["accuracy"]
    assert found["before"]["value"] == 0.5 and found["after"]["value"] == 0.6
    assert found["difference"]["value"] == pytest.approx(0.1) and found["verdict"] == "higher"
    assert compared(sets[0], sets[0])["ours"]["accuracy"]["verdict"] == "within noise"
    with pytest.raises(ValueError, match="different questions"):
        compared(sets[0], replace(sets[1], samples=sets[1].samples[:50]))


def test_mean_of_benchmarks():
    def of(value, headline=()):
        column = {"accuracy": value, "interval": [value - 0.03, value + 0.03], "headline": dict(headline)}
        return {"limited": False, "columns": {"official": column, "ours": column, "judge": None}}

    own = {"mean": {"value": 0.7, "interval": [0.66, 0.74]}}
    found = mean_of({"a": of(0.5), "b": of(0.3, own)}, ["a", "b"])
    assert found is not None and found["judge"] is None
    assert found["official"]["value"] == pytest.approx(0.6)  # of the first metrics, 0.5 and 0.7
    # half-widths 0.03 and 0.04: sqrt(0.0009 + 0.0016) / 2 = 0.025
    assert found["official"]["interval"] == pytest.approx([0.575, 0.625])
    assert mean_of({"a": of(0.5)}, ["a", "b"]) is None


def test_an_official_number_of_questions_is_fast():
    """3,940 questions in clusters of five: the figures are there in seconds, each with an interval."""
    samples = [
        asked("A", id_=str(n), problem_index=str(n // 5), problem_version=f"version {n % 5}") for n in range(3940)
    ]
    right = np.random.default_rng(0).random(3940) < 0.4
    scored = [line(str(n), bool(yes)) for n, yes in enumerate(right)]
    results = scored_set(find("mathverse"), samples, scored)
    found = figures(results, records(scored), {"limit": None})
    assert not found["limited"] and len(found["groups"]["problem_version"]) == 5
    low, high = found["columns"]["official"]["interval"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.24 / 3940), rel=0.15)
