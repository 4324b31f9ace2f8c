"""`avar score` on stored responses: files, figures, several models, and users' mistakes."""

import json

import pytest

from avar_rl.evaluation.benchmarks.scoring.score import main
from data_tools.formats.sample import SampleWriter
from tests.unit.benchmark_questions import asked
from tests.unit.chat_endpoint import Answer, ChatEndpoint, completion

VISTA = {"question_type": "multi_choice", "answer_type": "text", "answer": "red", "task": "figure question answering"}
QUESTIONS = {
    "mathvista": [asked("A", id_=f"mathvista/testmini/{n}", options=("red", "blue"), **VISTA) for n in range(4)],
    "hallusionbench": [
        asked(
            "yes",
            id_=f"h/{n}",
            gt_answer="1",
            category="VD",
            subcategory="map",
            set_id=str(n),
            figure_id="0",
            question_id="0",
        )
        for n in range(4)
    ],
}


def write(out, name: str, benchmark: str, responses: list[str]) -> None:
    """Leaves responses to the first questions of a benchmark as an evaluation does."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    with SampleWriter(folder / f"{benchmark}.samples.parquet") as writer:
        for sample in QUESTIONS[benchmark]:
            writer.add(sample)
    lines = [
        {"id": sample.id, "sample": None, "response": text, "tokens": 7, "truncated": False, "prefill": ""}
        for sample, text in zip(QUESTIONS[benchmark], responses, strict=False)
    ]
    (folder / f"{benchmark}.responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / f"{benchmark}.origin.json").write_text('{"limit": 4, "model": {"path": "m"}}')


@pytest.fixture
def out(tmp_path):
    write(tmp_path, "base", "mathvista", ["A", "B", "(A) red", "no idea"])
    write(tmp_path, "base", "hallusionbench", ["Yes", "No", "<answer>yes</answer>", "maybe"])
    return tmp_path


def results_in(out):
    return json.loads((out / "benchmarks.json").read_text())


def test_scores_what_is_stored(out, capsys):
    assert main([str(out)]) == 0
    found = results_in(out)
    assert found["date"] and "torch" in found["versions"]
    base = found["models"]["base"]
    assert base["mean"] is None and list(base["benchmarks"]) == ["mathvista", "hallusionbench"]
    vista = base["benchmarks"]["mathvista"]
    assert vista["columns"]["official"]["accuracy"] == 0.5 and vista["columns"]["judge"] is None
    assert vista["counts"]["unparsed"] == 1 and vista["limited"] and vista["origin"]["model"] == {"path": "m"}
    lines = [json.loads(line) for line in (out / "base" / "mathvista.scored.jsonl").read_text().splitlines()]
    assert [line["official"]["answer"] for line in lines] == ["red", "blue", "red", None]
    said = capsys.readouterr().out
    assert "base, mathvista: official 50.0% [" in said and "LIMITED to 4 of 1,000 questions" in said
    assert "mean of aAcc, fAcc, qAcc" in said


def test_scoring_again_gives_the_same(out):
    main([str(out)])
    before = results_in(out)
    main([str(out)])
    assert results_in(out)["models"] == before["models"]


def test_other_models_stay(out):
    write(out, "sft", "mathvista", ["A"] * 4)
    main([str(out), "--models", "base"])
    assert list(results_in(out)["models"]) == ["base"]
    main([str(out), "--models", "sft"])
    assert sorted(results_in(out)["models"]) == ["base", "sft"]
    assert results_in(out)["models"]["sft"]["benchmarks"]["mathvista"]["columns"]["official"]["accuracy"] == 1.0


def test_visual_attention_is_taken_over(out):
    (out / "base" / "mathvista.vas.json").write_text('{"vas": 3.5}')
    main([str(out)])
    assert results_in(out)["models"]["base"]["benchmarks"]["mathvista"]["vas"] == {"vas": 3.5}


def test_an_unfinished_benchmark_is_named_and_the_others_are_scored(out, capsys):
    write(out, "base", "mathvista", ["A", "B"])
    assert main([str(out)]) == 1
    assert list(results_in(out)["models"]["base"]["benchmarks"]) == ["hallusionbench"]
    assert "base: mathvista: 2 of 4 questions, such as mathvista/testmini/2, lack responses" in capsys.readouterr().err


@pytest.fixture
def endpoint():
    started = []

    def start(reply) -> str:
        started.append(ChatEndpoint(reply))
        return started[-1].url

    yield start
    for server in started:
        server.close()


def said(body) -> str:
    return body["messages"][0]["content"].partition("Predicted")[2].lower()


def test_judge(out, endpoint):
    url = endpoint(lambda body: completion("correct" if "answer: yes" in said(body) else "incorrect"))
    assert main([str(out), "--judge", url, "--judge-model", "m"]) == 0
    found = results_in(out)["models"]["base"]["benchmarks"]
    judge = found["hallusionbench"]["columns"]["judge"]
    assert judge["by"]["model"] == "m" and judge["by"]["prompts"].keys() == {"hallusionbench"}
    assert found["hallusionbench"]["counts"]["judge_failed"] == 0 and judge["accuracy"] == 0.5
    assert found["mathvista"]["columns"]["judge"]["accuracy"] is not None


def test_a_judge_that_is_down_leaves_the_other_columns(out, endpoint, capsys):
    url = endpoint(lambda body: Answer({"error": {"message": "no such model"}}, status=404))
    assert main([str(out), "--judge", url, "--judge-model", "m"]) == 0
    found = results_in(out)["models"]["base"]["benchmarks"]["hallusionbench"]
    assert found["columns"]["official"]["accuracy"] == 0.5
    assert found["counts"]["judge_failed"] == 4 and found["columns"]["judge"]["accuracy"] == 0.0
    said = capsys.readouterr().err
    assert "the judge m said nothing of use on 4 of 4 responses" in said and "no such model" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "rl"], "no responses of a model 'rl'; there are base"),
        (["--judge", "http://x"], "--judge and --judge-model belong together"),
        (["--judge", "http://x", "--judge-model", "m", "--judge-prompts", "/none"], "no such prompt"),
        (["--judge", "x:8000", "--judge-model", "m"], "the judge's address is 'x:8000'; it begins with http://"),
        (["--judge", "http://x", "--judge-model", "m", "--judge-concurrency", "0"], "both must be >= 1"),
    ],
)
def test_mistakes(out, capsys, arguments, said):
    assert main([str(out), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_an_empty_folder(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "holds no responses" in capsys.readouterr().err


def test_unknown_benchmarks_and_damaged_files_are_named(out, capsys):
    (out / "base" / "mathvista.responses.jsonl").rename(out / "base" / "vista.responses.jsonl")
    (out / "base" / "hallusionbench.origin.json").write_text("{")
    assert main([str(out)]) == 1
    said = capsys.readouterr().err
    assert "unknown benchmark 'vista'" in said and "hallusionbench.origin.json cannot be read" in said
    (out / "benchmarks.json").write_text("[]")
    assert main([str(out)]) == 2
