"""Statistics and report of a study, from result files written by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from avar_rl.runtime.bootstrap import seeds_and_questions, t_interval
from avar_rl.study import analysis
from avar_rl.study.__main__ import main
from avar_rl.study.results import settings_of
from avar_rl.study.study_file import Arm, ArmComparison, CorrelationOfMeasures, Study

RIGHT = {"plain": {0: [0, 0, 1, 0], 1: [0, 1, 1, 0]}, "guided": {0: [1, 0, 1, 1], 1: [0, 1, 1, 1]}}


def model(right: list[int], vas: float | None, checkpoint: str) -> dict:
    share = sum(right) / len(right)
    return {
        "checkpoint": checkpoint,
        "measures": {"accuracy": share, "accuracy_sampled": share, "vas": vas, "image_mass": 0.5},
        "by_question": {"accuracy": right},
    }


def run_of(arm: str, seed: int, ids: str = "abcd") -> dict:
    """Both arms of a seed have the same base; guidance doubles VAS."""
    return {
        "arm": arm, "seed": seed, "plan": f"{arm}{seed}", "commit": "abc", "versions": {},
        "stages": [
            {"name": "data", "seconds": 60.0, "processor_seconds": 30.0, "digest": f"data{seed}"},
            {"name": "sft", "seconds": 120.0, "processor_seconds": 240.0, "digest": f"{arm}{seed}"},
        ],
        "questions": {"id": list(ids), "kind": ["near", "near", "far", "far"]},
        "models": {
            "base": model([0, 0, 0, 0], 2.0 + seed, f"base{seed}"),
            "sft": model(RIGHT[arm][seed], (10.0 if arm == "guided" else 5.0) + seed, f"{arm}{seed}"),
        },
    }  # fmt: skip


def study(**more) -> Study:
    return Study(recipe="recipes/avar_tiny.sh", arms={"plain": Arm(), "guided": Arm()}, seeds=[0, 1], **more)


def results() -> dict:
    return {(arm, seed): run_of(arm, seed) for arm in RIGHT for seed in (0, 1)}


def compared(**settings) -> Study:
    return study(comparisons={"c": ArmComparison(**{"arm": "guided/sft", "against": "plain/sft", **settings})})


def test_an_effect_by_hand():
    """Seed 0: +1, 0, 0, +1 of 4; seed 1: 0, 0, 0, +1 of 4. Mean 0.375; Student's: 0.375 ± 12.706 · 0.1768 / √2."""
    found = analysis.effect(compared(), results(), "c")
    assert found is not None and found.difference.by_seed == {0: 0.5, 1: 0.25} and found.questions == 4
    assert found.difference.mean == 0.375 and found.difference.deviation == pytest.approx(0.25 / 2**0.5)
    assert found.over_seeds == pytest.approx((0.375 - 12.7062 * 0.125, 0.375 + 12.7062 * 0.125), rel=1e-4)
    assert found.both is not None and 0 <= found.both[0] < 0.375 < found.both[1] <= 1
    assert found.verdict == "open"  # Student's interval of two seeds holds 0
    far = analysis.effect(compared(kinds=["far"]), results(), "c")
    assert far is not None and far.difference.by_seed == {0: 0.5, 1: 0.5} and far.questions == 2
    with pytest.raises(ValueError, match="comparisons.c: no question of seed 0 is of the kinds fra"):
        analysis.effect(compared(kinds=["fra"]), results(), "c")


def test_an_effect_on_a_measure_without_questions_is_paired_by_seed():
    """VAS: +5 at both seeds, so no spread at all."""
    found = analysis.effect(compared(measure="vas"), results(), "c")
    assert found is not None and found.difference.by_seed == {0: 5.0, 1: 5.0}
    assert (found.questions, found.both, found.over_seeds, found.verdict) == (None, None, (5.0, 5.0), "above 0")
    turned = analysis.effect(compared(measure="vas", arm="plain/sft", against="guided/sft"), results(), "c")
    assert turned is not None and turned.verdict == "below 0"


@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        (((0.01, 0.05), (0.001, 0.06)), "reproduced"),
        (((-0.05, -0.01), (-0.06, -0.001)), "contradicted"),
        (((-0.01, 0.02), (-0.02, 0.029)), "not reproduced"),
        (((-0.01, 0.02), (-0.02, 0.031)), "open"),
        (((0.01, 0.05), (-0.01, 0.06)), "open"),
        (((0.001, 0.02), (-0.001, 0.02)), "not reproduced"),  # above 0 perhaps, but not by so much as to matter
        ((None, None), "open"),
    ],
)
def test_verdicts_on_a_claim_of_three_points(intervals, verdict):
    assert analysis.Effect(analysis.Spread({0: 0.0}), 4, *intervals, least=0.03).verdict == verdict


def test_the_gain_that_matters_may_be_a_share_of_the_other_side():
    """VAS of plain: 5 and 6, accuracy 0.25 and 0.5, of the far questions 0.5 and 0.5."""
    for settings, least in [
        ({"measure": "vas", "relative": True}, 0.2 * 5.5),
        ({"relative": True}, 0.2 * 0.375),
        ({"relative": True, "kinds": ["far"]}, 0.2 * 0.5),
        ({}, 0.2),
    ]:
        found = analysis.effect(compared(least=0.2, **settings), results(), "c")
        assert found is not None and found.least == pytest.approx(least), settings


def test_only_seeds_that_have_both_sides_count():
    some = results()
    del some["plain", 1]
    found = analysis.effect(compared(), some, "c")
    assert found is not None and found.difference.by_seed == {0: 0.5}
    assert found.over_seeds is None and found.verdict == "open"
    del some["plain", 0]
    assert analysis.effect(compared(), some, "c") is None
    assert analysis.effect(compared(kinds=["far"]), some, "c") is None  # as where nothing has been run yet


def test_different_questions_are_refused():
    other = results() | {("guided", 1): run_of("guided", 1, "abce")}
    with pytest.raises(ValueError, match="comparisons.c: at seed 1 the two were asked different questions"):
        analysis.effect(compared(), other, "c")


def test_questions_of_other_worlds_under_the_same_numbers_are_drawn_within_each_seed():
    """Seed 1's world has three near questions and one far: by their kinds they are others, though by ids the same."""
    some = results()
    for arm in RIGHT:
        some[arm, 1]["questions"]["kind"] = ["near", "near", "near", "far"]
    found = analysis.effect(compared(kinds=["near"]), some, "c")  # seed 0: +1, 0; seed 1: 0, 0, 0
    assert found is not None and found.difference.by_seed == {0: 0.5, 1: 0.0} and found.questions == 2
    differences = [np.array([1, 0]), np.array([0, 0, 0])]
    assert found.both == seeds_and_questions(differences, shared=False)


def test_both_intervals_against_normal_theory():
    """Values = seed effect N(0, 1) + question effect N(0, 1) + noise N(0, 1); 40 seeds, 40 questions.

    Shared questions: variance of the mean 1/40 + 1/40 + 1/1600; of their own: 1/40 + 2/1600.
    """
    generator = np.random.default_rng(0)
    seeds, noise = generator.normal(size=(40, 1)), generator.normal(size=(40, 40))
    common, own = generator.normal(size=(1, 40)), generator.normal(size=(40, 40))
    for questions, shared, variance in ((common, True, 2 / 40 + 1 / 1600), (own, False, 1 / 40 + 2 / 1600)):
        interval = seeds_and_questions([*(seeds + questions + noise)], shared=shared)
        assert interval is not None and interval[1] - interval[0] == pytest.approx(2 * 1.96 * variance**0.5, rel=0.25)
    assert seeds_and_questions([*(seeds + own)], shared=False) == seeds_and_questions([*(seeds + own)], shared=False)


def test_one_seed_has_the_interval_of_its_questions_and_one_value_has_none():
    values = np.arange(400) % 2.0  # 0.5 ± 1.96 · 0.5 / 20
    interval = seeds_and_questions([values], shared=True)
    assert interval == pytest.approx((0.451, 0.549), abs=0.006)
    assert seeds_and_questions([values[:1]], shared=True) is None and t_interval(np.ones(1)) is None


@pytest.mark.parametrize(("n", "quantile"), [(2, 12.7062), (3, 4.30265), (5, 2.77645), (11, 2.22814), (101, 1.98397)])
def test_students_interval_has_the_tabulated_quantiles(n, quantile):
    values = np.arange(n, dtype=np.float64)
    interval = t_interval(values)
    assert interval is not None
    half = (interval[1] - interval[0]) / 2
    assert half == pytest.approx(quantile * values.std(ddof=1) / n**0.5, rel=1e-5)


def test_a_model_that_several_runs_share_is_one_checkpoint():
    found = {(one.model, one.seed, one.arms) for one in analysis.checkpoints(results())}
    assert found == {
        ("base", 0, ("guided", "plain")), ("base", 1, ("guided", "plain")),
        ("sft", 0, ("plain",)), ("sft", 1, ("plain",)), ("sft", 0, ("guided",)), ("sft", 1, ("guided",)),
    }  # fmt: skip


def test_correlations_over_and_within_models():
    """sft: VAS 5, 6, 10, 11 with accuracy 1/4, 1/2, 3/4, 3/4: covariance 2 · 0.25 … by numpy; base never varies."""
    pair = CorrelationOfMeasures("vas", "accuracy")
    rows = {row.over: row for row in analysis.correlate(analysis.checkpoints(results()), pair)}
    assert list(rows) == ["all checkpoints", "base", "sft", "within models"]
    assert rows["all checkpoints"].n == 6 and rows["base"].pearson is None and rows["sft"].n == 4
    x, y = [5.0, 6.0, 10.0, 11.0], [0.25, 0.5, 0.75, 0.75]
    sft, within = rows["sft"].pearson, rows["within models"].pearson
    assert sft is not None and sft[0] == pytest.approx(np.corrcoef(x, y)[0, 1])
    centred = [-3.0, -2.0, 2.0, 3.0, -0.5, 0.5], [-0.3125, -0.0625, 0.1875, 0.1875, 0.0, 0.0]
    assert within is not None and within[0] == pytest.approx(np.corrcoef(*centred)[0, 1])
    spearman = rows["sft"].spearman  # ranks 1 2 3 4 with 1 2 3.5 3.5
    assert spearman is not None and spearman[0] == pytest.approx(np.corrcoef([1, 2, 3, 4], [1, 2, 3.5, 3.5])[0, 1])
    assert [
        row.over
        for row in analysis.correlate(
            analysis.checkpoints(results()), CorrelationOfMeasures("vas", "accuracy", ["sft"])
        )
    ] == ["all checkpoints"]


STUDY = """
recipe: recipe.sh
about: Does guidance help?
seeds: [0, 1]
results: results
arms: {plain: {}, guided: {about: "with a | in it"}}
comparisons:
  vas: {arm: guided/sft, against: plain/sft, measure: vas}
  right: {arm: guided/sft, against: plain/sft, primary: true, about: guidance helps}
correlations: [{x: vas, y: accuracy}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.sh").write_text("")
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "results" / "runs").mkdir(parents=True)
    settings = settings_of(Study(recipe="recipe.sh", arms={"plain": Arm(), "guided": Arm()}), "plain")
    for (arm, seed), run in results().items():
        (tmp_path / "results" / "runs" / f"{arm}-{seed}.json").write_text(json.dumps(run | settings))
    return tmp_path


def test_the_page_says_what_the_results_say(folder, capsys):
    assert main(["report", "study.yaml"]) == 0
    page = (folder / "results" / "report.md").read_text()
    assert page.startswith(
        "# Study study\n\nDoes guidance help?\n\n4 of 4 runs of `recipe.sh`, at commit abc. 6 stages, "
    )
    # 2 · 60 + 4 · 120 s, each stage once; of processors 2 · 30 + 4 · 240
    assert "0.2 hours one after the other, 0.3 hours of processors." in page
    assert "| plain, guided | base | 2 | 0.0 ± 0.0 % | 0.0 ± 0.0 % | 2.50 ± 0.71 | 0.5 ± 0 |" in page
    assert "| guided | sft | 2 | 75.0 ± 0.0 % | 75.0 ± 0.0 % | 10.50 ± 0.71 | 0.5 ± 0 |" in page
    lines = page.splitlines()
    right, vas = (
        next(i for i, line in enumerate(lines) if f"| {n} | guided/sft" in line) for n in ("**right**", "vas")
    )
    assert (
        right < vas
        and "(guidance helps) | accuracy | 2 | +37.5 | " in lines[right]
        and lines[right].endswith("| open |")
    )
    assert "| 2 | +5 | - | +5 .. +5 | above 0 |" in lines[vas]
    assert "with a \\| in it" in page
    named = {line.partition("(")[2].rstrip(")") for line in lines if line.startswith("![")}
    assert named == {path.name for path in (folder / "results").glob("*.png")} == {
        "arms.png", "effects.png", "vas_accuracy.png",
    }  # fmt: skip
    assert capsys.readouterr().out == "results/report.md\n"


def test_the_check_finds_every_difference(folder, capsys):
    assert main(["report", "study.yaml", "--check"]) == 1  # nothing is there yet
    assert capsys.readouterr().out.count("is not what the results give") == 4
    assert main(["report", "study.yaml"]) == 0
    assert main(["report", "study.yaml", "--check"]) == 0
    before = (folder / "results" / "effects.png").read_bytes()
    assert main(["report", "study.yaml"]) == 0 and (folder / "results" / "effects.png").read_bytes() == before
    page = folder / "results" / "report.md"
    page.write_text(page.read_text().replace("+37.5", "+38.5"))
    capsys.readouterr()
    assert main(["report", "study.yaml", "--check"]) == 1
    assert capsys.readouterr().out.startswith("avar study report: results/report.md is not what the results give")
    assert main(["report", "study.yaml"]) == 0
    run = folder / "results" / "runs" / "guided-0.json"
    run.write_text(run.read_text().replace('"vas": 10.0', '"vas": 11.0'))
    capsys.readouterr()
    assert main(["report", "study.yaml", "--check"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 4  # the page, and all three pictures show VAS


def test_runs_that_are_missing_or_of_other_settings_are_named(folder, capsys):
    (folder / "results" / "runs" / "plain-1.json").unlink()
    assert main(["report", "study.yaml"]) == 0
    page = (folder / "results" / "report.md").read_text()
    assert "3 of 4 runs" in page and "**Missing**: plain with seed 1." in page
    study = folder / "study.yaml"
    study.write_text(STUDY.replace("plain: {}", "plain: {overrides: [x]}"))
    capsys.readouterr()
    assert main(["report", "study.yaml"]) == 2
    assert "results/runs/plain-0.json was made with other settings of arm plain" in capsys.readouterr().err
    study.write_text(STUDY.replace("results: results", "results: elsewhere"))
    assert main(["report", "study.yaml"]) == 2
    assert "elsewhere holds no result of this study yet: run it first" in capsys.readouterr().err


EXCERPTS = """
excerpts:
  models: {page: NOTES.md, models: {plain/sft: "cold start", guided/sft: "with a | in it"}, columns: {vas: VAS}}
  claims: {page: NOTES.md, comparisons: {right: Guidance helps}}
"""
NOTES = """Before
<!-- study study: models -->
old
<!-- end of models -->
between
<!-- study study: claims -->
<!-- end of claims -->
after
"""


def test_tables_in_other_pages_are_written_and_checked(folder, capsys):
    (folder / "study.yaml").write_text(STUDY + EXCERPTS)
    notes = folder / "NOTES.md"
    notes.write_text(NOTES)
    assert main(["report", "study.yaml"]) == 0
    written = notes.read_text()
    assert written.startswith("Before\n<!-- study study: models -->\n\n| model | seeds | VAS |\n")
    assert (
        "| cold start | 2 | 5.50 ± 0.71 |\n| with a \\| in it | 2 | 10.50 ± 0.71 |\n\n<!-- end of models -->\nbetween\n"
        in written
    )
    assert "| Guidance helps | 2 | +37.5 points | " in written and written.endswith("<!-- end of claims -->\nafter\n")
    assert main(["report", "study.yaml"]) == 0 and notes.read_text() == written
    assert main(["report", "study.yaml", "--check"]) == 0
    notes.write_text(written.replace("+37.5", "+38.5"))
    capsys.readouterr()
    assert main(["report", "study.yaml", "--check"]) == 1
    assert capsys.readouterr().out.startswith("avar study report: NOTES.md is not what the results give")


@pytest.mark.parametrize(
    ("excerpt", "expected"),
    [
        ("{page: NOTES.md, comparisons: {vas: x}}", "NOTES.md has no lines <!-- study study: one --> and"),
        ("{page: nowhere.md, comparisons: {vas: x}}", "nowhere.md has no lines"),
        ("{page: NOTES.md, comparisons: {vsa: x}}", "excerpts.one.comparisons: no comparison 'vsa'; did you mean vas?"),
        ("{page: NOTES.md, models: {plain/sft: x}}", "excerpts.one: give models and columns, or comparisons"),
        ("{page: NOTES.md, models: {plian/sft: x}, columns: {vas: VAS}}", "did you mean plain?"),
    ],
)  # fmt: skip
def test_an_excerpt_that_cannot_be_written_is_one_sentence(folder, capsys, excerpt, expected):
    (folder / "study.yaml").write_text(STUDY + f"excerpts:\n  one: {excerpt}\n")
    (folder / "NOTES.md").write_text(NOTES)
    assert main(["report", "study.yaml"]) == 2
    assert expected in capsys.readouterr().err
    assert not (folder / "results" / "report.md").exists() and (folder / "NOTES.md").read_text() == NOTES
