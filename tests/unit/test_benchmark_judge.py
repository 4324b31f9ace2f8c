"""The judge against a loopback endpoint: its steps for each benchmark, odd replies, replies kept, one that is down."""

import json

import pytest

from avar_rl.evaluation.benchmarks.scoring.judge import PROMPTS, REPLIES, SLOTS, JudgePrompts, judge_all
from avar_rl.evaluation.benchmarks.scoring.judge_replies import JudgeAddress
from tests.unit.benchmark_questions import asked
from tests.unit.chat_endpoint import Answer, ChatEndpoint, completion

VISTA = asked(
    "B", options=("3/11", "8/11"), answer="8/11", question_type="multi_choice", answer_type="text", query="Q? (A) 3/11"
)
VERSE = asked("50°", question_type="free-form", question_for_eval="How large is it?")
HALLUSION = asked("yes", gt_answer="1", gt_answer_details="They are parallel.")


def said(answer: str | Answer) -> Answer:
    return completion(answer) if isinstance(answer, str) else answer


@pytest.fixture
def judging(tmp_path, monkeypatch):
    """A function: benchmark, question, responses, and what the endpoint says, in turn or to a prompt → the judge's
    words, who it was, and the prompts that it was sent."""
    monkeypatch.setattr("avar_rl.runtime.chat_client.FIRST_PAUSE_S", 0.001)
    started: list[ChatEndpoint] = []

    def judge(benchmark, sample, responses, *answers, **settings):
        if answers and callable(answers[0]):
            started.append(ChatEndpoint(lambda body: said(answers[0](body["messages"][0]["content"]))))
        else:
            started.append(ChatEndpoint.giving(*map(said, answers or ["unasked"])))
        address = JudgeAddress(started[-1].url, "m", retries=0, concurrency=1, **settings)
        records = [{"id": sample.id, "sample": None, "response": text} for text in responses]
        found, who = judge_all(benchmark, {sample.id: sample}, records, address, JudgePrompts.of(), tmp_path)
        return found, who, [request["messages"][0]["content"] for request in started[-1].requests]

    yield judge
    for endpoint in started:
        endpoint.close()


def test_mathvista_extracts_and_compares_by_the_official_rules(judging):
    (word,), who, prompts = judging("mathvista", VISTA, ["I think it is the second."], "Extracted answer: B")
    assert (word.right, word.answer, word.failed) == (True, "8/11", False)
    assert "Q? (A) 3/11" in prompts[0] and "I think it is the second." in prompts[0]
    assert who["model"] == "m" and who["requests"] == 1 and list(who["prompts"]) == ["mathvista"]
    assert len(who["prompts"]["mathvista"]) == 64 and len(who["date"]) == 10 and who["trouble"] is None


def test_mathvista_asks_nothing_where_the_official_code_does_not(judging):
    (word,), _, prompts = judging("mathvista", VISTA, ["8/11"])
    assert word.right and not prompts


def test_nothing_extracted_is_wrong_and_no_option_is_guessed(judging):
    (word,), *_ = judging("mathvista", VISTA, ["I cannot see it."], "null")
    assert (word.right, word.answer, word.failed) == (False, None, False)


def test_mathverse_extracts_and_judges(judging):
    (word,), who, prompts = judging("mathverse", VERSE, ["It is 50 degrees."], "50 degrees", "Judgement: 1")
    assert (word.right, word.answer) == (True, "50 degrees") and len(prompts) == 2
    assert all(part in prompts[1] for part in ("How large is it?", "50°", "50 degrees"))
    assert list(who["prompts"]) == ["mathverse_extract", "mathverse_verdict"]
    (word,), *_ = judging("mathverse_vision_only", VERSE, ["It is 40 degrees."], "40 degrees", "0")
    assert word.right is False and not word.failed


@pytest.mark.parametrize(
    ("reply", "right"),
    [("correct", True), ("Incorrect.", False), ("unclear", False), ("<think>x</think>correct", True)],
)
def test_hallusionbench_gives_a_verdict(judging, reply, right):
    (word,), _, prompts = judging("hallusionbench", HALLUSION, [f"Well, {reply}"], reply)
    assert word.right is right and not word.failed and "They are parallel." in prompts[0]


@pytest.mark.parametrize(
    "answer",
    [
        "perhaps",  # neither 0 nor 1
        "",
        "<think>so far",  # a thought that is cut off
        completion("1", finish="length"),
        Answer({"error": {"message": "too long"}}, status=400),
        Answer(b"<html>"),
    ],
)
def test_what_cannot_be_used_fails_and_the_rest_is_judged(judging, answer):
    def reply(prompt):
        if "Model's answer" not in prompt:  # the extraction
            return "odd" if "so odd" in prompt else "fine"
        return answer if "Model's answer: odd" in prompt else "1"

    found, who, _ = judging("mathverse", VERSE, ["so odd", "so fine"], reply)
    assert [(word.failed, word.right) for word in found] == [(True, None), (False, True)] and who["trouble"]


def test_an_unclosed_thought_is_not_asked_about(judging):
    (word,), _, prompts = judging("hallusionbench", HALLUSION, ["<think>yes"])
    assert word.right is False and not prompts


def test_a_refused_key_ends_the_asking(judging):
    refused = Answer({"error": {"message": "no such key"}}, status=401)
    found, who, prompts = judging("hallusionbench", HALLUSION, [f"yes {n}" for n in range(30)], refused)
    assert all(word.failed and word.right is None for word in found) and len(prompts) == 1
    assert "no such key" in who["trouble"]


def test_an_endpoint_that_fails_again_and_again_is_left_alone(judging):
    found, who, prompts = judging(
        "hallusionbench", HALLUSION, [f"yes {n}" for n in range(60)], Answer({"error": "busy"}, status=503)
    )
    assert all(word.failed for word in found) and len(prompts) == 20 and "503" in who["trouble"]


def test_replies_are_kept_and_not_asked_for_again(judging, tmp_path):
    responses = ["Yes, they are.", "Yes, they are.", "No."]
    found, who, prompts = judging("hallusionbench", HALLUSION, responses, "correct", "incorrect")
    assert who["requests"] == len(prompts) == 2  # the same is asked once
    again, who, prompts = judging("hallusionbench", HALLUSION, responses)
    assert again == found and who["requests"] == 0 and not prompts
    assert len((tmp_path / REPLIES).read_text().splitlines()) == 2


def test_what_failed_is_asked_again(judging):
    judging("hallusionbench", HALLUSION, ["Yes"], Answer({"error": "busy"}, status=503))
    (word,), *_ = judging("hallusionbench", HALLUSION, ["Yes"], "correct")
    assert word.right is True


def test_a_torn_end_is_cut_off_and_a_damaged_line_named(judging, tmp_path):
    judging("hallusionbench", HALLUSION, ["Yes"], "correct")
    path = tmp_path / REPLIES
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "torn')
    _, who, _ = judging("hallusionbench", HALLUSION, ["Yes"])
    assert who["requests"] == 0 and path.read_bytes() == whole
    path.write_bytes(b"[]\n" + whole)
    with pytest.raises(ValueError, match=r"judge.jsonl, line 1: no reply of a judge"):
        judging("hallusionbench", HALLUSION, ["Yes"])
    path.write_bytes(whole)  # mended in the same process
    assert judging("hallusionbench", HALLUSION, ["Yes"])[1]["requests"] == 0


def test_two_processes_do_not_write_to_one_file(judging, tmp_path):
    import fcntl

    with (tmp_path / REPLIES).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process writes"):
            judging("hallusionbench", HALLUSION, ["Yes"])


def test_braces_of_a_response_stay(judging):
    _, _, prompts = judging("hallusionbench", HALLUSION, [r"\frac{1}{2} and {gold} {response}"], "correct")
    assert r"\frac{1}{2} and {gold} {response}" in prompts[0]


def test_prompts_of_the_users(tmp_path):
    for name, slots in SLOTS.items():
        (tmp_path / f"{name}.txt").write_text(" ".join(f"{{{slot}}}" for slot in slots))
    mine, shipped = JudgePrompts.of(tmp_path), JudgePrompts.of()
    assert mine.filled("mathverse_extract", response="{x}") == "{x}"
    assert mine.hashes("mathvista") != shipped.hashes("mathvista")
    (tmp_path / "mathvista.txt").write_text("{question}")
    with pytest.raises(ValueError, match="lacks {response}"):
        JudgePrompts.of(tmp_path)
    (tmp_path / "mathvista.txt").unlink()
    with pytest.raises(ValueError, match=r"mathvista.txt: no such prompt"):
        JudgePrompts.of(tmp_path)


def test_every_shipped_prompt_is_used():
    assert {path.stem for path in PROMPTS.glob("*.txt")} == SLOTS.keys()
    assert json.dumps(JudgePrompts.of().hashes("mathverse_vision_only"))
