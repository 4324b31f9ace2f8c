"""Responses as VLMEvalKit and lmms-eval read them: against their documented formats, read back as they read them."""

import ast
import csv
import json
from dataclasses import replace

import pytest

from avar_rl.evaluation.benchmarks.benchmark import BENCHMARKS
from avar_rl.evaluation.benchmarks.reporting.export import (
    DATASETS,
    export,
    final_answer,
    prediction_file,
    prediction_row,
    response_log,
    sample_log,
)
from tests.unit.benchmark_folder import BASE, HOSTILE, SAMPLES, hallusion, vista, write_folder


def test_every_part_of_every_benchmark_has_a_name_in_both_tools():
    assert set(DATASETS) == {f"{one.name}/{part.name}" for one in BENCHMARKS.values() for part in one.parts}


def table(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_prediction_file_of_vlmevalkit(tmp_path):
    written, problems = export(write_folder(tmp_path), "base", "vlmevalkit")
    assert [path.name for path in written] == ["base_MathVista_MINI.tsv", "base_HallusionBench.tsv"] and not problems
    first, _, _, hostile = table(written[0])
    # what its MathVista scorer reads: index, question, prediction, question_type, choices, answer_option, task, skills
    assert first["index"] == "1" and first["question"].startswith("Hint: …\nQuestion: What colour")
    assert first["prediction"] == BASE["mathvista"][0][2]
    assert (first["question_type"], first["answer"], first["answer_option"]) == ("multi_choice", "red", "A")
    assert ast.literal_eval(first["choices"]) == ["red", "blue"] == [first["A"], first["B"]]
    assert first["task"] == "figure question answering"
    assert hostile["prediction"] == HOSTILE  # tabs, quotes and line ends too: all cells are quoted


def test_the_greedy_response_is_written_and_no_sample(tmp_path):
    written, _ = export(write_folder(tmp_path), "base", "vlmevalkit")
    assert [line["index"] for line in table(written[0])] == ["1", "2", "3", "4"]


def test_pandas_reads_the_file_as_vlmevalkit_does(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "x.tsv"
    said = 'a "quoted"\ttab\nnew line\r\n</answer>'
    path.write_bytes(
        prediction_file([{"index": "1", "prediction": said}, {"index": "2", "A": "x", "prediction": ""}]).encode()
    )
    data = pandas.read_csv(path, sep="\t")
    assert list(data.columns) == ["index", "A", "prediction"] and list(data["index"]) == [1, 2]
    assert data["prediction"][0] == said and pandas.isna(data["A"][0]) and data["A"][1] == "x"


def test_hallusionbench_finds_set_figure_and_question_in_the_index():
    row = prediction_row(hallusion("2", "3", "1", "no"), "No.")
    assert row["index"].split("_")[3:6] == ["2", "3", "1"]  # as its fAcc and qAcc split it
    assert (row["category"], row["l2-category"], row["answer"]) == ("VD", "illusion", "No")


def test_mmmu_needs_the_index_of_vlmevalkits_own_table():
    extra = {"id": "validation_Art_1", "subject": "Art", "discipline": "Art and Design", "part": "validation"}
    made = replace(vista(1), source="mmmu", id="mmmu/validation/validation_Art_1", extra=extra)
    with pytest.raises(ValueError, match=r"mmmu/validation/validation_Art_1: VLMEvalKit looks up .*MMMU_DEV_VAL.tsv"):
        prediction_row(made, "A")
    row = prediction_row(replace(made, extra=extra | {"index": "17"}), "A")
    assert (row["index"], row["split"], row["category"], row["l2-category"]) == (
        "17",
        "validation",
        "Art",
        "Art and Design",
    )
    opened = replace(made, options=(), gold="5", extra=extra | {"index": "18"})
    assert prediction_row(opened, "5")["A"] == ""  # an open question, to its rule


def test_mathverse_has_its_metadata_as_a_text_of_a_mapping():
    extra = {"sample_index": "9", "subject": "Plane Geometry", "subfield": "Area", "query_wo": "Please", "answer": "A"}
    extra |= {"problem_version": "Vision Only", "question_for_eval": "Find it.", "part": "testmini"}
    row = prediction_row(replace(vista(1), source="mathverse", extra=extra), "A")
    assert json.loads(row["metadata"].replace("'", '"')) == {"subject": "Plane Geometry", "subfield": "Area"}
    assert (row["index"], row["question"], row["question_for_eval"]) == ("9", "Please", "Find it.")


def test_lmms_evals_from_log_finds_each_response_by_its_place(tmp_path):
    written, _ = export(write_folder(tmp_path), "base", "lmms-eval")
    names = [path.name for path in written]
    assert names[:2] == ["mathvista_testmini_format.json", "20261127_000000_samples_mathvista_testmini_format.jsonl"]
    log = json.loads(written[0].read_text())
    # what `from_log` reads: args (model, model_args, limit), model_configs.task, logs[] (doc_id, resps[0][0])
    assert log["args"] == {"model": "base", "model_args": "", "limit": 4}  # LIMITED: it wants have_limits=True
    assert log["model_configs"]["task"] == "mathvista_testmini_format"
    assert {one["doc_id"]: one["resps"][0][0] for one in log["logs"]}[2] == "<answer>red</answer>"


def test_the_log_of_samples_has_the_documented_fields():
    said = ["<think>It is red.</think><answer>A</answer>", "<think>so long", "B", "B"]
    lines = sample_log(list(zip(SAMPLES["mathvista"], said, strict=True)))
    assert lines[0] == {
        "doc_id": 0,
        "input": "What colour has circle 1?\n(A) red\n(B) blue",
        "target": "red",
        "filtered_resps": ["<answer>A</answer>"],
        "resps": [[said[0]]],
    }
    assert lines[1]["filtered_resps"] == ["<think>so long"] and "resps" not in lines[1]


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>A or B?</think> <answer> B </answer>", "B"),
        ("<think>x</think>The answer is B.", "The answer is B."),
        ("<think><answer>A</answer>", "<think><answer>A</answer>"),  # an open thought: nothing to take out of it
    ],
)
def test_the_final_answer_alone(response, answer):
    assert final_answer(response) == answer


def test_the_answer_form_is_written_where_it_is_asked_for(tmp_path):
    written, _ = export(write_folder(tmp_path), "base", "vlmevalkit", "answer")
    assert [line["prediction"] for line in table(written[0])][:3] == ["A", "<think>so long", "red"]


def test_a_limited_log_says_so_and_a_whole_one_does_not():
    assert response_log("m", "t", [], limited=False)["args"]["limit"] is None
