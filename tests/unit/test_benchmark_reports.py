"""What is written and printed of an evaluation: scores, LIMITED, settings, disagreements, differences, clean scores."""

import copy
import json
from pathlib import Path

import pytest

from avar_rl.cli import main as avar
from avar_rl.evaluation.__main__ import check_arguments
from avar_rl.evaluation.benchmarks.benchmark import BENCHMARKS
from avar_rl.evaluation.benchmarks.reporting.answered import read_answered, read_results
from avar_rl.evaluation.benchmarks.reporting.compare import compare_sides, differing_settings, side
from avar_rl.evaluation.benchmarks.reporting.markdown import cell, disagreements, document
from avar_rl.evaluation.benchmarks.reporting.published import published
from avar_rl.evaluation.benchmarks.reporting.wording import between, give_or_take, marked, percent, points, settings_of
from data_tools.formats.rows import rl_row, write_rows
from tests.unit.benchmark_folder import ORIGIN, RESULTS, SAMPLES, TUNED, picture, write_folder, write_model


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("out"))


# ---- published numbers ----
def test_the_papers_means_are_those_of_its_seven_numbers():
    papers = {one.name for one in BENCHMARKS.values() if one.paper}
    for one in published():
        assert set(one.scores) <= set(BENCHMARKS) and one.source and one.model
        if one.mean is not None:
            assert set(one.scores) == papers
            assert round(sum(score["value"] for score in one.scores.values()) / 7, 1) == one.mean


def test_a_published_number_is_shown_as_its_source_gives_it():
    by_name = {one.name: one for one in published()}
    assert by_name["VLMEvalKit board"].text("mathvista") == "67.8–68.1"
    assert by_name["Qwen report"].text("mmmu_pro") == "38.3 ?"
    assert by_name["Qwen report"].text("mathverse_vision_only") == ""
    assert "mmmu_pro: the model card says 41.0" in by_name["Qwen report"].notes


# ---- words ----
def test_numbers_in_words():
    assert (percent(0.5834), percent(None), points(0.021), points(-0.3)) == ("58.3", "–", "+2.1", "-30.0")
    assert between([0.55, 0.615]) == "[55.0, 61.5]" and between(None) == ""
    assert give_or_take(0.583, [0.55, 0.61]) == "58.3 ± 3.0" and give_or_take(1.0, None) == "100.0"
    assert marked("58.3", {"limited": True}) == "58.3 LIMITED" and marked("58.3", {"limited": False}) == "58.3"


def test_settings_are_named_by_their_place_without_the_stamps_of_files():
    judge = {"model": "judge-7b", "prompts": {"mathvista": "abc"}, "date": "2026-11-27", "requests": 3, "trouble": None}
    figures = {"origin": ORIGIN | {"system": None, "layers": [1, 2]}, "columns": {"judge": {"by": judge}}}
    found = dict(settings_of(figures))
    assert found["model path"] == "models/base" and found["layers"] == "1, 2"
    assert (found["judge model"], found["judge prompts mathvista"]) == ("judge-7b", "abc")
    assert not any("safetensors" in name for name in found) and not {"system", "n", "judge requests"} & found.keys()
    assert dict(settings_of({"origin": {}, "columns": {"judge": None}})) == {"judge": "none, by rules alone"}


# ---- Markdown ----
def rows_of(text: str, title: str) -> list[list[str]]:
    """The rows of the first table under a heading, without its head."""
    section = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[one.strip() for one in line.strip("|").split(" | ")] for line in table[2:]]


def test_the_report_has_scores_with_intervals_beside_published_ones():
    first, second, third = rows_of(document(RESULTS), "Scores")
    assert first[:5] == [
        "MathVista (testmini)",
        "base",
        "**25.0** [10.0, 90.0] LIMITED",
        "**50.0** [10.0, 90.0] LIMITED",
        "4 of 1,000 LIMITED",
    ]
    assert first[5:7] == ["68.2", "74.7"] and second[1] == "tuned"
    assert third[2:5] == ["**61.1** [20.0, 80.0]", "**61.1** [20.0, 80.0]", "951"]


def test_the_report_has_own_metrics_samples_counts_attention_and_groups():
    text = document(RESULTS)
    assert [row[2:4] for row in rows_of(text, "Metrics of the benchmarks' own")][1] == ["aAcc", "**66.7** [20.0, 80.0]"]
    assert [row[3:] for row in rows_of(text, "Drawn responses")] == [
        ["avg@k", "**50.0** [20.0, 80.0] LIMITED"],
        ["pass@1", "**50.0** [20.0, 80.0] LIMITED"],
        ["pass@2", "**75.0** [20.0, 80.0] LIMITED"],
        ["majority", "**50.0** [20.0, 80.0] LIMITED"],
    ]
    counts = rows_of(text, "Counts and lengths")[0][2:]
    assert counts == [f"{one} LIMITED" for one in ("1", "2", "1", "0", "18", "5 / 9 / 12", "64")]
    assert rows_of(text, "Attention") == [
        ["MathVista (testmini)", "base", "8.1 LIMITED", "0.21 LIMITED", "0.1 LIMITED"]
    ]
    groups = rows_of(text, "By group")
    assert groups == [
        ["figure question answering", "**25.0** [10.0, 90.0] LIMITED", "**50.0** LIMITED", "4 LIMITED", "–", "–", "–"]
    ]


def test_shared_settings_are_said_once_and_the_others_where_they_differ():
    results = json.loads(json.dumps(RESULTS))
    results["models"]["tuned"]["benchmarks"]["mathvista"]["origin"]["generation"]["seed"] = 7
    rows = rows_of(document(results), "Settings")
    assert ["all", "", "prompts hash", "0f0f0f"] in rows
    assert ["MathVista (testmini)", "tuned", "generation seed", "7"] in rows
    assert ["HallusionBench (image)", "base", "generation seed", "0"] in rows
    assert not any(row[0] == "all" and row[2] == "generation seed" for row in rows)


def test_the_mean_of_the_seven_stands_beside_the_papers():
    results = copy.deepcopy(RESULTS)
    results["models"]["base"]["mean"] = {
        "limited": True, "official": {"value": 0.5, "interval": [0.4, 0.6]}, "ours": None, "judge": None,
    }  # fmt: skip
    rows = rows_of(document(results), "Mean of the paper's seven")
    assert rows[0] == ["base", "**50.0** [40.0, 60.0] LIMITED", "–", "–"]
    assert [row[1] for row in rows[1:]] == ["49.1", "56.1"]
    assert "Mean of the paper" not in document(RESULTS)  # no model was asked all


def test_a_model_of_which_nothing_was_scored_is_reported_too(tmp_path, capsys):
    (tmp_path / "benchmarks.json").write_text(json.dumps({"models": {"base": {"benchmarks": {}, "mean": None}}}))
    assert avar(["report", str(tmp_path)]) == 0
    assert "No benchmark was scored." in (tmp_path / "benchmarks.md").read_text()
    assert "base.html" in capsys.readouterr().out


def test_free_text_cannot_leave_its_cell():
    assert cell("a|b\n<img> *x* `y`\\") == "a\\|b \\<img\\> \\*x\\* \\`y\\`\\\\"


def test_disagreements_name_the_question_its_gold_and_every_verdict(out):
    text = disagreements(out, "base", ["mathvista", "hallusionbench"])
    assert "## MathVista (testmini): 1" in text and "## HallusionBench (image): 0" in text
    [row] = rows_of(text, "MathVista (testmini): 1")
    assert row[0] == "[mathvista/testmini/3](base.html#id=mathvista%2Ftestmini%2F3)"
    assert row[1:] == ["What colour has circle 3?", "A", "unparsed", "right: red", "–"]


# ---- what is read back ----
def test_verdicts_of_every_kind(out):
    questions = list(read_answered(out, "base", "mathvista"))
    assert [one.answers[0].verdict("official") for one in questions] == ["right", "unparsed", "unparsed", "wrong"]
    assert [one.answers[0].verdict("ours") for one in questions] == ["right", "undecided", "right", "wrong"]
    assert [one.answers[0].verdict("judge") for one in questions] == [""] * 4
    assert [one.answers[0].disagree for one in questions] == [False, False, True, False]
    assert [answer.drawn for answer in questions[0].answers] == [None, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "mathvista.scored.jsonl").write_text(""),
            "no score of mathvista/testmini/1; `avar score",
        ),
        (lambda folder: (folder / "mathvista.scored.jsonl").write_text("{}\n"), "line 1: not an object with id"),
        (lambda folder: (folder / "mathvista.scored.jsonl").write_text("[" * 100_000), "line 1: not JSON"),
        (
            lambda folder: (folder / "mathvista.responses.jsonl").write_text(""),
            "no response to question mathvista/testmini/1",
        ),
        (lambda folder: (folder / "mathvista.samples.parquet").unlink(), "no such data file"),
    ],
)
def test_files_that_are_missing_or_damaged_are_named(tmp_path, change, message):
    write_folder(tmp_path)
    change(tmp_path / "base")
    with pytest.raises(ValueError, match=message):
        list(read_answered(tmp_path, "base", "mathvista"))


def test_responses_to_other_questions_are_refused(tmp_path):
    write_folder(tmp_path)
    path = tmp_path / "base" / "mathvista.responses.jsonl"
    stray = {"id": "mathvista/testmini/9", "sample": None}
    path.write_text(path.read_text() + json.dumps(stray | {"response": "A", "tokens": 1, "truncated": False}) + "\n")
    with (tmp_path / "base" / "mathvista.scored.jsonl").open("a") as scored:
        says = {"official": {"answer": "A", "right": True, "parsed": True}, "ours": {"answer": "A", "right": True}}
        scored.write(json.dumps(stray | says | {"judge": None}) + "\n")
    with pytest.raises(ValueError, match="1 responses are to other questions, such as mathvista/testmini/9"):
        list(read_answered(tmp_path, "base", "mathvista"))


def test_results_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"benchmarks\.json: no such file"):
        read_results(tmp_path)
    (tmp_path / "benchmarks.json").write_text("[1]")
    with pytest.raises(ValueError, match="has no `models`"):
        read_results(tmp_path)


# ---- the command ----
def test_the_command_writes_everything_and_says_what(out, capsys):
    assert avar(["report", str(out)]) == 0
    said = capsys.readouterr().out
    for name in ("benchmarks.md", "base.html", "base.disagreements.md", "tuned.html"):
        assert (out / name).is_file() and str(out / name) in said
    assert "25.0 ± 40.0*" in said and "4 of 1,000*" in said and "* LIMITED" in said
    assert (out / "benchmarks.md").read_text(encoding="utf-8") == document(RESULTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "OUT", "--models", "other"], "no model 'other'; it has base, tuned"),
        (["report", "OUT", "--overlay", "mathvista/testmini/99"], "no such question of base"),
        (["report", "OUT", "--check-train", "none.parquet"], "none.parquet: no such data file"),
        (["compare", "OUT", "OUT"], "has the models base, tuned: say which with --models X Y"),
        (["compare", "OUT", "OUT", "--models", "base", "none"], "no model 'none'"),
    ],
)
def test_a_mistake_is_one_sentence(out, capsys, arguments, message):
    assert avar([str(out) if one == "OUT" else one for one in arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"avar {arguments[0]}: ") and message in said and said.count("\n") == 1


def test_training_files_are_looked_at_before_anything_is_asked(tmp_path):
    asked = [
        "base=x",
        "--benchmarks",
        "mmstar",
        "--out",
        str(tmp_path),
        "--check-train",
        str(tmp_path / "none.parquet"),
    ]
    with pytest.raises(ValueError, match=r"none\.parquet: no such data file"):
        check_arguments(asked)
    with pytest.raises(ValueError, match="--check-train goes with --benchmarks"):
        check_arguments(["base=x", "--data", "d.parquet", "--out", str(tmp_path), "--check-train", "t.parquet"])


# ---- two models ----
def test_a_comparison_is_of_the_same_questions(out):
    found = compare_sides(side(out, "base"), side(out, "tuned"))
    assert list(found) == ["mathvista"] and (found["mathvista"]["n"], found["mathvista"]["limited"]) == (4, True)
    change = found["mathvista"]["columns"]["official"]["accuracy"]
    assert (change["before"]["value"], change["after"]["value"], change["difference"]["value"]) == (0.25, 1.0, 0.75)
    assert change["verdict"] == "higher" and change["difference"]["interval"][0] > 0


def test_a_model_against_itself_is_within_noise(out):
    change = compare_sides(side(out, "base"), side(out, "base"))["hallusionbench"]["columns"]["ours"]
    assert {one["verdict"] for one in change.values()} == {"within noise"}
    assert change["aAcc"]["difference"] == {"value": 0.0, "interval": [0.0, 0.0]}


def test_other_questions_cannot_be_compared(out, tmp_path):
    few = {"mathvista": [(0, *TUNED["mathvista"][0][1:])]}
    write_model(tmp_path, "few", few, {"mathvista": SAMPLES["mathvista"][:1]})
    results = {"models": {"few": {"benchmarks": {"mathvista": RESULTS["models"]["tuned"]["benchmarks"]["mathvista"]}}}}
    (tmp_path / "benchmarks.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match="different questions"):
        compare_sides(side(out, "base"), side(tmp_path, None))
    results["models"]["few"]["benchmarks"] = {"mmstar": {}}
    (tmp_path / "benchmarks.json").write_text(json.dumps(results))
    with pytest.raises(
        ValueError, match="no benchmark in common: they were asked mathvista, hallusionbench and mmstar"
    ):
        compare_sides(side(out, "base"), side(tmp_path, None))


def test_settings_that_differ_are_said_and_the_model_is_not(out):
    before, after = side(out, "base"), side(out, "tuned")
    assert differing_settings(before, after, ["mathvista"]) == []
    changed = copy.deepcopy(after.figures["mathvista"])
    changed["origin"]["prompts"] = {"name": "official", "hash": "0f0f0f"}
    changed["origin"]["model"] = {"path": "models/other"}
    other = type(after)(after.folder, after.name, {"mathvista": changed})
    assert differing_settings(before, other, ["mathvista"]) == ["prompts name: ours and official"]


def test_the_comparison_as_table_plot_and_json(out, tmp_path, capsys):
    plot, json_file = tmp_path / "plots" / "c.png", tmp_path / "c.json"
    files = ["--plot", str(plot), "--json", str(json_file)]
    assert avar(["compare", str(out), str(out / "benchmarks.json"), "--models", "base", "tuned", *files]) == 0
    said = capsys.readouterr().out
    assert "+75.0*" in said and "higher" in said and "only base was asked hallusionbench" in said
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert json.loads(json_file.read_text())["benchmarks"]["mathvista"]["n"] == 4


# ---- training data ----
def test_scores_with_and_without_what_stands_in_training_data(tmp_path, capsys):
    write_folder(tmp_path)
    shown = picture("#d62828", place=1)  # that of mathvista/testmini/1, which base answers rightly
    row = rl_row(id="t", source="x", question="What?", gold="1", images=[shown], index=0, split="train")
    write_rows([row], tmp_path / "train.parquet")
    assert avar(["report", str(tmp_path), "--check-train", str(tmp_path / "train.parquet")]) == 0
    found = json.loads((tmp_path / "contamination.json").read_text())["benchmarks"]["mathvista"]
    assert found["found"]["image"] == {"mathvista/testmini/1": "train.parquet, row t"}
    base = found["models"]["base"]
    assert (base["all"]["n"], base["all"]["official"]["value"]) == (4, 0.25)  # 1 of 4
    kept = base["images not found"]
    near = len(found["found"]["near_image"])
    assert kept["n"] == 3 - near and kept["official"]["value"] == 0.0  # the right one is left out
    assert "mathvista/testmini/1" in (tmp_path / "contamination.md").read_text()
    assert "same image" in capsys.readouterr().out


def test_where_no_question_is_left_there_is_no_score(tmp_path):
    write_folder(tmp_path)
    asked = [
        rl_row(
            id="t", source="x", question="Are the two lines equally long in this picture?", gold="1", index=0, split="t"
        )
    ]
    write_rows(asked, tmp_path / "train.parquet")
    assert avar(["report", str(tmp_path), "--check-train", str(tmp_path / "train.parquet")]) == 0
    found = json.loads((tmp_path / "contamination.json").read_text())["benchmarks"]["hallusionbench"]
    assert len(found["found"]["text"]) == 3
    assert found["models"]["base"]["nothing found"] == {"n": 0, "official": None, "ours": None}
    assert found["models"]["base"]["images not found"]["n"] == 3
