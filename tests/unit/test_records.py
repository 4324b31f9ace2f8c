"""The journal of responses: what was taken stays, nothing torn is read, no two origins are mixed."""

import errno
import json
import os

import pytest

from avar_rl.evaluation.answering.generate import AnswerRequest, Response
from avar_rl.evaluation.answering.questions import Question
from avar_rl.evaluation.benchmarks.asking.records import ResponsesFile, read_records
from avar_rl.probe.samples import Conversation

ORIGIN = {
    "model": {"path": "m", "files": {"w": [1, 2]}},
    "data": {"hash": "d0"},
    "prompts": {"name": "official", "hash": "p0"},
    "generation": {"temperature": 1.0, "intervention": {"layers": (1, 2)}},
    "limit": None,
    "n": 3,
    "versions": {"vllm": "1"},
}


def drawn(name: str, sample: int | None = None, text: str = "<answer>B</answer>"):
    question = Question(Conversation(name, ({"role": "user", "content": "?"},), ()), "", "B")
    return AnswerRequest("mmmu", question, sample), Response(text, (1, 2, 3), sample == 1, "<think>")


def opened(folder, **changes) -> ResponsesFile:
    return ResponsesFile(folder, "mmmu", ORIGIN | changes)


def test_a_line_for_each_response(tmp_path):
    with opened(tmp_path / "base") as file:
        file.append([drawn("q1"), drawn("q1", 1, "half a \ud800 mark \u2028 and a\nline")])
        assert file.done == {("q1", None), ("q1", 1)}
    first, second = read_records(tmp_path / "base", "mmmu")
    assert first == {
        "id": "q1", "sample": None, "response": "<answer>B</answer>", "tokens": 3, "truncated": False,
        "prefill": "<think>",
    }  # fmt: skip
    assert second["sample"] == 1 and second["truncated"] and second["response"] == "half a ? mark \u2028 and a\nline"
    assert json.loads((tmp_path / "base" / "mmmu.origin.json").read_text())["prompts"]["hash"] == "p0"


@pytest.mark.parametrize("torn", [b"{", b'{"id": "q3", "sample": null, "response": "cut', b"\xe2\x80", b'{"id": "q3"}'])
def test_a_torn_end_is_cut_off_and_the_next_response_stands_in_its_place(tmp_path, torn):
    with opened(tmp_path) as file:
        file.append([drawn("q1"), drawn("q2")])
    with file.path.open("ab") as end:
        end.write(torn)
    assert [record["id"] for record in read_records(tmp_path, "mmmu")] == ["q1", "q2"]
    with opened(tmp_path) as file:
        assert file.done == {("q1", None), ("q2", None)}
        file.append([drawn("q3")])
    assert [record["id"] for record in read_records(tmp_path, "mmmu")] == ["q1", "q2", "q3"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"path": "n", "files": {"w": [1, 2]}}}, 'model.path is "m" there and "n" now'),
        ({"model": {"path": "m", "files": {"w": [1, 3]}}}, r"model.files.w is \[1, 2\] there and \[1, 3\] now"),
        ({"model": {"path": "m", "files": {}}}, r"model.files.w is \[1, 2\] there and not now"),
        ({"prompts": {"name": "ours", "hash": "p1"}}, 'prompts.name is "official" there and "ours" now; prompts.hash'),
        (
            {"generation": ORIGIN["generation"] | {"temperature": 0.7}},
            "generation.temperature is 1.0 there and 0.7 now",
        ),
        ({"limit": 5}, "limit is null there and 5 now"),
        ({"data": {"hash": "d1"}}, "data.hash"),
    ],
)
def test_responses_of_another_origin_are_refused_by_name(tmp_path, changes, named):
    with opened(tmp_path) as file:
        file.append([drawn("q1")])
    with pytest.raises(ValueError, match=f"mmmu.responses.jsonl was made otherwise: {named}.*another --out or NAME"):
        opened(tmp_path, **changes)
    with opened(tmp_path, versions={"vllm": "2"}) as file:  # what may differ between two starts
        assert len(file.done) == 1


def test_a_damaged_file_is_named_with_its_line(tmp_path):
    with opened(tmp_path) as file:
        file.append([drawn("q1"), drawn("q2")])
    whole = file.path.read_bytes()
    for bad in (b"[]", b"{", b'{"id": 1, "sample": null, "response": ""}', b"", b"[" * 100_000):
        file.path.write_bytes(bad + b"\n" + whole)
        with pytest.raises(ValueError, match="mmmu.responses.jsonl, line 1: no record of a response"):
            opened(tmp_path)
    file.path.write_bytes(whole)
    (tmp_path / "mmmu.origin.json").unlink()
    with pytest.raises(ValueError, match=r"is there without mmmu.origin.json"):
        opened(tmp_path)
    with pytest.raises(ValueError, match="no such file of responses"):
        read_records(tmp_path, "mmstar")


def test_two_processes_do_not_write_to_one_file(tmp_path):
    with opened(tmp_path), pytest.raises(ValueError, match="another process writes to"):
        opened(tmp_path)
    with opened(tmp_path):
        pass


def test_a_full_disk_keeps_what_was_taken(tmp_path, monkeypatch):
    file = opened(tmp_path)
    file.append([drawn("q1")])
    room, write = [70], os.write

    def full(descriptor: int, data) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(descriptor, bytes(data)[: room[0]])
        room[0] -= count
        return count

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            file.append([drawn("q2")])
    file.__exit__()
    with opened(tmp_path) as file:
        assert file.done == {("q1", None)}
        file.append([drawn("q2")])
    assert [record["id"] for record in read_records(tmp_path, "mmmu")] == ["q1", "q2"]
