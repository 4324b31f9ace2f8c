"""Evaluation without an engine: command line, data, grading, figures, summary."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch

from avar_rl.evaluation.__main__ import _parser, _with_defaults, evaluate, main, parse_models
from avar_rl.evaluation.answering.generate import GenerationSettings, Response, Responses
from avar_rl.evaluation.answering.questions import Question, check_weights, load_processor, load_questions
from avar_rl.evaluation.answering.visual_attention import measure
from avar_rl.evaluation.intervened import compare, print_comparison
from avar_rl.evaluation.result import STAGE_KEYS, figures, grade, print_table, write_responses
from avar_rl.evaluation.same_text import _difference
from avar_rl.evaluation.summary import summarise
from avar_rl.intervention import Intervention
from avar_rl.probe.samples import Conversation
from avar_rl.runtime.files import read_parquet, write_json, write_whole
from avar_rl.vas import VasSummary
from data_tools.formats.rows import write_rows


def test_models_have_names():
    assert parse_models(["base=/a/b", "/c/sft/", "org/name"]) == {"base": "/a/b", "sft": "/c/sft/", "name": "org/name"}
    for bad in (["a="], ["=b"], ["x/y=b"]):
        with pytest.raises(ValueError, match="NAME=MODEL"):
            parse_models(bad)
    with pytest.raises(ValueError, match="two models are called b"):
        parse_models(["/a/b", "/c/b"])


def test_command_line_parses_before_torch_is_imported():
    code = "import sys, avar_rl.evaluation.__main__, avar_rl.evaluation.summary, avar_rl.evaluation.same_text"
    subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=True)


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"samples": -1}, {"temperature": 0.0}, {"tensor_parallel": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GenerationSettings(**wrong)
    GenerationSettings(samples=0, temperature=0.0)  # greedy alone


def thought(answer: str) -> str:
    return f"<think>I see it.</think><answer>{answer}</answer>"


def question(name: str, kind: str, gold: str, options: tuple[str, ...] = ()) -> Question:
    turns = ({"role": "user", "content": "<image>What?"},)
    return Question(Conversation(name, turns, (b"",)), kind, gold, options)


QUESTIONS = [question("q1", "count", "3"), question("q2", "area", r"2\pi")]
RESPONSES = [
    Responses(
        Response(thought("3"), (7, 8), False),
        (Response(thought("3"), (7,), False), Response("3", (7, 8, 9), False)),
    ),
    Responses(
        Response(r"<answer>\pi2</answer>", (7, 8), False),
        (Response("<think>cut", (1, 2, 3, 4), True), Response(thought("2*pi"), (7, 8), False)),
    ),
]


def test_figures_by_hand():
    graded = grade(QUESTIONS, RESPONSES)
    assert [(g.id, g.sample) for g in graded] == [(q, s) for q in ("q1", "q2") for s in (None, 0, 1)]
    assert [g.answer for g in graded] == ["3", "3", "3", r"\pi2", None, "2*pi"]
    vas = VasSummary(8.0, 4.0, 0.5, 0.1, 0.2, 5.0, 2.5, 2, 0)
    found = figures("sft", graded, vas)
    assert found["name"] == "sft" and found["n"] == 2 and found["samples"] == 2
    assert found["accuracy"] == 1.0  # both greedy answers are right
    assert found["accuracy_sampled"] == 0.75  # (1 + 1 + 0 + 1) / 4: a cut thought is no answer
    assert (
        found["format"] == 0.5 and found["format_sampled"] == 0.5
    )  # q2's greedy has no thought; 2 of 4 samples are whole
    assert found["truncated"] == pytest.approx(1 / 6)
    assert found["response_tokens"] == pytest.approx(14 / 6)  # 2+1+3 + 2+4+2
    assert found["accuracy_by_kind"] == {"area": 1.0, "count": 1.0}
    assert (found["vas"], found["image_mass"], found["system_mass"]) == (8.0, 0.5, 0.1)
    assert found["attention"]["ratio_of_means"] == 5.0


def test_comparison_of_an_intervention_by_hand():
    right, wrong = Response(thought("3"), (7,), False), Response(thought("4"), (7,), False)
    questions = [question(str(i), "count", "3") for i in range(4)]
    before = grade(questions, [Responses(wrong, (wrong, right)), *[Responses(right, (right, right))] * 3])
    after = grade(questions, [Responses(right, (right, right)), *[Responses(right, (right, right))] * 3])
    found = compare(before, after)
    assert found["greedy"] == {"without": 0.75, "with": 1.0, "difference": 0.25, "interval": [0.0, 0.75], "n": 4}
    assert found["sampled"]["difference"] == pytest.approx(0.125)  # the first question rises from 1/2 to 1
    same = compare(after, after)["greedy"]
    assert same["interval"] == [0.0, 0.0]  # paired: no spread of accuracy, only of differences
    greedy_only = grade(questions[:1], [Responses(right, ())])
    alone = compare(greedy_only, greedy_only)
    assert alone["sampled"] is None and alone["greedy"]["interval"] is None


def test_a_thought_that_the_chat_template_opens_counts():
    text = thought("3").removeprefix("<think>")
    responses = Responses(Response(text, (7,), False), (Response(text, (7,), False, "<think>\n"),))
    assert [g.format for g in grade(QUESTIONS[:1], [responses])] == [0.0, 1.0]


def test_the_text_of_an_option_is_right():
    asked = question("q", "position", "B", ("red", "blue"))
    found = grade([asked] * 2, [Responses(Response(thought(text), (7,), False), ()) for text in ("blue", "red")])
    assert [(g.answer, g.accuracy) for g in found] == [("blue", 1.0), ("red", 0.0)]


def test_any_of_the_right_answers_is_right():
    asked = replace(question("q", "count", "six"), other_golds=("half a dozen",))
    texts = ("half a dozen", "6", "12")
    found = grade([asked] * 3, [Responses(Response(thought(text), (7,), False), ()) for text in texts])
    assert [(g.gold, g.accuracy) for g in found] == [("six", 1.0), ("six", 1.0), ("six", 0.0)]


def test_without_samples_and_images_those_figures_are_null():
    greedy_only = [Responses(Response(thought("4"), (1,), False), ())]
    found = figures("base", grade(QUESTIONS[:1], greedy_only), None)
    assert found["accuracy"] == 0.0 and found["accuracy_sampled"] is None and found["vas"] is None


def test_tables_keep_every_number_at_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    vas = VasSummary(1234567.0, 4.0, 0.01234, 0.01234, 0.2, 5.0, 2.5, 2, 0)
    found = figures("a-model-of-a-long-name.intervened", grade(QUESTIONS, RESPONSES), vas)
    print_table([found, found | {"vas": None, "accuracy_sampled": None}])
    shares = {"without": 0.1, "with": 1.0, "difference": 0.9, "interval": [0.85, 0.95], "n": 240}
    print_comparison([found | {"intervention": {"greedy": shares, "sampled": None}}], "img=0.15,sys=0.05,mode=weight")
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    for number in ("100.0%", "75.0%", "50.0%", "1.235e+06", "0.01234", "+90.0%", "+85.0% .. +95.0%", "240"):
        assert number in text, number
    assert "a-mo" in text and "…" in text


def test_files_are_written_whole(tmp_path):
    graded = grade(QUESTIONS, RESPONSES)
    write_responses(graded, tmp_path / "new" / "sft.responses.jsonl")
    lines = (tmp_path / "new" / "sft.responses.jsonl").read_text().splitlines()
    assert len(lines) == 6 and json.loads(lines[3])["gold"] == r"2\pi"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sft.responses.jsonl"]  # no half files


def test_summary_collects_stages_in_order_with_seconds_and_versions(tmp_path):
    for name in ("sft", "base", "ablation", "grpo"):
        write_json(tmp_path / "evaluation" / f"{name}.json", figures(name, grade(QUESTIONS, RESPONSES), None))
    (tmp_path / "stages").mkdir()
    for place, (stage, seconds) in enumerate((("sft", 7), ("data", 3))):
        (tmp_path / "stages" / stage).write_text(f"{seconds}\nthe command\n")
        os.utime(tmp_path / "stages" / stage, (place, place))
    summary = summarise(tmp_path)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == ["base", "sft", "grpo", "ablation"]
    assert all(tuple(stage) == STAGE_KEYS for stage in summary["stages"])
    assert summary["seconds"] == {"sft": 7.0, "data": 3.0}
    assert summary["versions"]["verl"] == "0.9.1" and "python" in summary["versions"]


def test_curves_of_training_are_means_over_the_last_quarter_of_the_steps(tmp_path):
    write_json(tmp_path / "evaluation" / "sft.json", figures("sft", grade(QUESTIONS, RESPONSES), None))
    summarise(tmp_path)
    assert not (tmp_path / "training.json").exists()  # no reinforcement
    steps = [{"step": step, "data": {"reward/accuracy": step / 10}} for step in range(1, 9)]
    write_whole(tmp_path / "logs" / "grpo.metrics.jsonl", "".join(f"{json.dumps(step)}\n" for step in steps))
    summarise(tmp_path)
    assert json.loads((tmp_path / "training.json").read_text()) == pytest.approx({"reward/accuracy": 0.75})


def test_summary_names_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="holds no results"):
        summarise(tmp_path)
    path = tmp_path / "evaluation" / "sft.json"
    for content in ('{"name": "sft"}', "[1]"):
        write_whole(path, content)
        with pytest.raises(ValueError, match="sft.json lacks .*accuracy"):
            summarise(tmp_path)
    write_whole(path, "{")
    with pytest.raises(ValueError, match="sft.json: not JSON"):
        summarise(tmp_path)


def test_questions_of_the_miniature_world(tiny_world):
    processor = load_processor(tiny_world / "base")
    path = tiny_world / "data" / "test.parquet"
    data = load_questions(path, processor, limit=5)
    rows = read_parquet(path)[:5]
    assert [list(q.options) for q in data.questions] == [row["extra_info"]["options"] for row in rows]
    assert [q.gold for q in data.questions] == [row["reward_model"]["ground_truth"] for row in rows]
    assert [q.kind for q in data.questions] == [row["extra_info"]["kind"] for row in rows]
    text = data.questions[0].conversation.text(processor)
    assert text.count("<|image_pad|>") == 1 and text.endswith("<|im_start|>assistant\n")
    inputs = processor(text=[text], images=data.questions[0].conversation.pictures(), return_tensors="pt")
    assert inputs["input_ids"].shape[1] <= data.longest_prompt


def test_a_question_without_a_kind_has_that_of_its_data_set(tiny_world, tmp_path):
    rows = read_parquet(tiny_world / "data" / "test.parquet")[:2]
    rows[0]["extra_info"]["kind"] = ""
    write_rows(rows, tmp_path / "rows.parquet")
    first, second = load_questions(tmp_path / "rows.parquet", load_processor(tiny_world / "base")).questions
    assert first.kind == "tiny_world" and second.kind == rows[1]["extra_info"]["kind"] != ""


def test_bad_data_is_named(tiny_world, tmp_path):
    processor = load_processor(tiny_world / "base")
    with pytest.raises(ValueError, match="no such data file"):
        load_questions(tmp_path / "missing.parquet", processor)
    with pytest.raises(ValueError, match="chat rows"):
        load_questions(tiny_world / "data" / "sft_val.parquet", processor)
    with pytest.raises(ValueError, match="limit is 0"):
        load_questions(tiny_world / "data" / "test.parquet", processor, limit=0)
    rows = read_parquet(tiny_world / "data" / "test.parquet")[:4]
    rows[1]["reward_model"]["ground_truth"] = "((("
    rows[3]["images"] = []
    write_rows(rows, tmp_path / "faulty.parquet")
    with pytest.raises(ValueError) as caught:
        load_questions(tmp_path / "faulty.parquet", processor)
    message = str(caught.value)
    assert "3 faults" in message and rows[1]["extra_info"]["id"] in message and rows[3]["extra_info"]["id"] in message


def test_bad_models_are_named_in_one_sentence(tiny_world, tmp_path, capfd, monkeypatch):
    for name in ("OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING", "TORCHDYNAMO_DISABLE"):
        monkeypatch.setenv(name, "1")  # main() sets what is not set; monkeypatch puts it back
    (tmp_path / "empty").mkdir()
    common = ["--data", str(tiny_world / "data" / "test.parquet"), "--out", str(tmp_path / "out")]
    assert main([str(tmp_path / "empty"), *common]) == 2
    assert "holds no weights" in capfd.readouterr().err
    assert main([str(tmp_path / "empty"), *common, "--intervene", "img=x"]) == 2
    assert "intervention.img: Input should be a valid number" in capfd.readouterr().err
    (tmp_path / "empty" / "model.safetensors").touch()
    assert main([str(tmp_path / "empty"), *common]) == 2
    assert "no processor" in capfd.readouterr().err
    check_weights("org/model-on-the-hub")


@pytest.mark.parametrize("asked", [["--data", "x.parquet"], ["--benchmarks", "mathvista", "--intervene", "img=0.15"]])
def test_to_answer_with_an_intervention_alone_takes_one_and_questions_of_a_file(asked, tmp_path, capsys):
    assert main(["m", *asked, "--out", str(tmp_path / "out"), "--only-intervened"]) == 2
    assert capsys.readouterr().err == "avar evaluate: --only-intervened goes with --data and --intervene\n"
    assert not (tmp_path / "out").exists()


def test_with_an_intervention_alone_a_model_answers_once_and_is_not_taken_for_one_without(tmp_path, monkeypatch):
    """The engine's part is a stand-in, which says with which intervention it was asked."""
    asked = []

    def answered(name, model, data, processor, settings, options):
        asked.append((name, settings.intervention))
        return [], {"name": name}

    for name in ("check_weights", "load_processor", "load_questions"):
        monkeypatch.setattr(f"avar_rl.evaluation.answering.questions.{name}", MagicMock())
    monkeypatch.setattr("avar_rl.attention.roles.Markup.from_tokenizer", MagicMock())
    monkeypatch.setattr("avar_rl.evaluation.__main__._run", answered)
    monkeypatch.setattr("avar_rl.evaluation.intervened.compare", lambda *graded: {})
    data, model = tmp_path / "data.parquet", tmp_path / "model"
    data.touch()
    model.mkdir()
    options = ["--data", str(data), "--intervene", "img=0.15", "--out", str(tmp_path)]
    for more in ([], ["--only-intervened"], ["--only-intervened"]):
        chosen = _parser().parse_args([*options, *more, str(model)])
        _with_defaults(chosen)
        chosen.intervene = Intervention.parse(chosen.intervene)
        evaluate("m", str(model), chosen)
    plain, changed = GenerationSettings().intervention, Intervention.parse("img=0.15")
    assert plain != changed
    assert asked == [("m", plain), ("m.intervened", changed), ("m", changed)]  # the third was evaluated before
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["origin"]["only_intervened"] and "intervention" not in found


def test_attention_figures_do_not_depend_on_batching(tiny_world):
    processor = load_processor(tiny_world / "base")
    questions = load_questions(tiny_world / "data" / "test.parquet", processor, limit=5).questions
    alone = measure(str(tiny_world / "base"), questions, processor, batch_size=1)
    padded = measure(str(tiny_world / "base"), questions, processor, batch_size=5)
    assert alone.n == padded.n == 5
    assert padded.vas == pytest.approx(alone.vas, rel=1e-4) and alone.vas > 0
    assert padded.image_mass == pytest.approx(alone.image_mass, rel=1e-4) and 0 < alone.image_mass < 1
    assert measure(str(tiny_world / "base"), [], processor) is None


class Words:
    def decode(self, ids):
        return " ".join(map(str, ids))


def test_where_two_greedy_texts_part():
    logits_TV = torch.tensor([[0.0, 9.0, 0.0, 0.0], [0.0, 0.0, 5.0, 4.5], [0.0, 0.0, 0.0, 1.0]])
    found = _difference("q1", [1, 2, 3], [1, 3, 3], logits_TV, Words())
    assert (found.position, found.transformers, found.vllm, found.gap) == (1, "2 3", "3 3", 0.5)  # 5.0 - 4.5
    ended = _difference("q1", [1, 2], [1, 2, 3], logits_TV, Words())
    assert ended.position == 2 and ended.gap == float("inf")
