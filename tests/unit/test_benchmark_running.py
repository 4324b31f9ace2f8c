"""Benchmarks by name on the command line, their data made ready, and mistakes in one sentence each. No engine."""

import json
import os

import pytest

from avar_rl.evaluation.__main__ import main
from avar_rl.evaluation.answering.questions import load_processor
from avar_rl.evaluation.answering.replicas import check_room
from avar_rl.evaluation.benchmarks.asking.asked import Preparation, content_hash, data_places
from avar_rl.evaluation.benchmarks.asking.prompting import load_prompts
from avar_rl.evaluation.benchmarks.benchmark import BENCHMARKS, chosen
from data_tools.formats.sample import read_samples
from data_tools.miniature.scenes import render
from data_tools.miniature.source import questions


@pytest.fixture(scope="module")
def yes_or_no(tmp_path_factory):
    """Three rows of HallusionBench's schema, two of them about one figure."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = [render(asked.scene) for asked in questions(0, 8) if asked.scene][:2]
    common = {"category": "VD", "subcategory": "chart", "visual_input": "1", "set_id": "0", "question": "Is it red?"}
    rows = [
        common | {
            "figure_id": str(place // 2), "question_id": str(place), "gt_answer": str(place % 2),
            "gt_answer_details": "", "filename": "x.png", "image": {"bytes": pictures[place // 2], "path": None},
        }
        for place in range(3)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("copies")
    pq.write_table(pa.Table.from_pylist(rows), folder / "hallusionbench.parquet")
    return folder


def test_places_of_data(yes_or_no):
    both = chosen(["hallusionbench", "mmmu_pro"])
    assert data_places([], both) == {"hallusionbench": {}, "mmmu_pro": {}}  # the hub's own
    parts = ["mmmu_pro/standard=a.parquet", "mmmu_pro/vision=org/name"]
    found = data_places([str(yes_or_no), *parts], both)
    assert found["mmmu_pro"] == {"standard": "a.parquet", "vision": "org/name"}
    assert found["hallusionbench"] == {"image": str(yes_or_no / "hallusionbench.parquet")}
    assert data_places(["hallusionbench=org/a=b"], both[:1]) == {"hallusionbench": {"": "org/a=b"}}
    with pytest.raises(ValueError, match="no mmmu_pro_standard"):
        data_places([str(yes_or_no)], both)
    with pytest.raises(ValueError, match="no folder; files and hub names are given as NAME=org/name"):
        data_places(["org/name"], both)
    with pytest.raises(ValueError, match="unknown benchmark 'mmmmu'"):
        data_places(["mmmmu=x"], both)


def test_questions_are_read_once_and_asked_until_all_responses_are_there(tiny_world, yes_or_no, tmp_path):
    processor = load_processor(tiny_world / "base")
    bench = BENCHMARKS["hallusionbench"]
    preparation = Preparation(data_places([str(yes_or_no)], [bench]), 3, "Look first.")
    prompts = load_prompts("official", bench)
    asked = preparation.asked(bench, prompts, tmp_path / "base", processor)
    assert asked.n == 3 and asked.limits.images == 1
    conversations = [question.conversation for question in asked.questions()]
    assert asked.limits.tokens == max(one.tokens(processor) for one in conversations)
    assert [turn["role"] for turn in conversations[0].turns] == ["system", "user"]
    assert asked.data["hash"] == content_hash(list(read_samples(asked.path)))

    ids = [one.id for one in conversations]
    wanted = [(ids[0], None), (ids[0], 0), (ids[1], None), (ids[1], 0), (ids[2], None), (ids[2], 0)]
    requests = list(asked.requests((), 1))
    assert [(one.question.conversation.id, one.sample) for one in requests] == wanted
    rest = asked.requests({wanted[0], wanted[3]}, 1)
    assert [(one.question.conversation.id, one.sample) for one in rest] == [
        w for w in wanted if w not in (wanted[0], wanted[3])
    ]

    second = preparation.asked(bench, prompts, tmp_path / "sft", processor)  # another name of the same file
    assert second.path.samefile(asked.path) and second.data == asked.data and second.limits == asked.limits


def refused(capfd, *arguments: str) -> str:
    assert main([*arguments]) == 2
    said = capfd.readouterr().err
    assert said.startswith("avar evaluate: ") and "Traceback" not in said
    return said


@pytest.fixture
def stack_variables(monkeypatch):
    for name in ("OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING", "TORCHDYNAMO_DISABLE"):
        monkeypatch.setenv(name, "1")  # main() sets what is not set; monkeypatch puts it back


def test_a_mistake_is_one_sentence(tiny_world, yes_or_no, tmp_path, capfd, stack_variables):
    base, out = f"base={tiny_world / 'base'}", ["--out", str(tmp_path / "out")]
    data = ["--benchmark-data", str(yes_or_no)]
    said = refused(capfd, base, *out, "--benchmarks", "mmmmu")
    assert "unknown benchmark 'mmmmu'; known are mathvista, mathvision" in said and "all for the paper's seven" in said
    ask = [base, *out, "--benchmarks", "hallusionbench", *data]
    assert "3 questions, but hallusionbench has 951" in refused(capfd, *ask)
    few = [*ask, "--limit", "2"]
    assert "--prompts nothing: neither official" in refused(capfd, *few, "--prompts", "nothing")
    assert "replicas: Input should be greater than or equal to 1, not 0" in refused(capfd, *few, "--replicas", "0")
    assert "--max-pixels 100 is less than one image token" in refused(capfd, *few, "--max-pixels", "100")
    assert "--system-prompt is empty" in refused(capfd, *few, "--system-prompt", " ")
    assert "--prompts goes with --benchmarks" in refused(capfd, base, *out, "--data", "x.parquet", "--prompts", "ours")
    twice = [base, f"base.intervened={tiny_world / 'base'}", *few[1:], "--intervene", "img=0.1"]
    assert "base.intervened is the name of base's second answers" in refused(capfd, *twice)


def test_a_model_without_weights_or_processor_is_named(tiny_world, yes_or_no, tmp_path, capfd, stack_variables):
    (tmp_path / "bare").mkdir()
    ask = [str(tmp_path / "bare"), "--out", str(tmp_path / "out"), "--benchmarks", "hallusionbench", "--limit", "2"]
    ask += ["--benchmark-data", str(yes_or_no)]
    assert "bare holds no weights" in refused(capfd, *ask)
    (tmp_path / "bare" / "model.safetensors").touch()
    assert "no processor" in refused(capfd, *ask)


def test_responses_of_another_model_are_refused_before_any_engine_starts(
    tiny_world, yes_or_no, tmp_path, capfd, stack_variables
):
    origin = tmp_path / "out" / "base" / "hallusionbench.origin.json"
    origin.parent.mkdir(parents=True)
    there = {"model": {"path": "another"}, "data": {"hash": "d0"}, "n": 2, "longest_prompt": {"tokens": 9, "images": 1}}
    origin.write_text(json.dumps(there))
    origin.with_name("hallusionbench.responses.jsonl").write_text("")
    ask = [f"base={tiny_world / 'base'}", "--out", str(tmp_path / "out"), "--benchmarks", "hallusionbench"]
    ask += ["--benchmark-data", str(yes_or_no), "--limit", "2"]
    assert 'hallusionbench.responses.jsonl was made otherwise: model.path is "another" there' in refused(capfd, *ask)


def test_a_full_disk_is_a_sentence(tiny_world, yes_or_no, tmp_path, capfd, stack_variables, monkeypatch):
    import errno

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("avar_rl.evaluation.benchmarks.asking.asked.SampleWriter.__enter__", full)
    ask = [f"base={tiny_world / 'base'}", "--out", str(tmp_path / "out"), "--benchmarks", "hallusionbench"]
    ask += ["--benchmark-data", str(yes_or_no), "--limit", "2"]
    assert "No space left on device; what is written there is kept: make room" in refused(capfd, *ask)


def test_more_replicas_than_there_is_room_for_are_refused(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 8.0})
    check_room(4, gpus=2)
    check_room(2, gpus=0)
    with pytest.raises(ValueError, match="--replicas 5 takes 10 GPUs, and Ray has 8: ask for fewer replicas"):
        check_room(5, gpus=2)
    with pytest.raises(ValueError, match="--replicas 3 takes 3 CPUs, and Ray has 2"):
        check_room(3, gpus=0)
