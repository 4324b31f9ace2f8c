"""Keys of requests, the journal, chosen rows, limits, and the teacher's descriptions."""

import asyncio
import random
from dataclasses import replace

import pytest

from avar_rl.runtime.chat_replies import Reply
from data_tools.formats.sample import DataSample, SampleWriter
from data_tools.miniature import teacher_texts as tiny_texts
from data_tools.miniature.source import questions
from data_tools.synthesis.calls.journal import Completion, Failure, Journal
from data_tools.synthesis.calls.request import make_request
from data_tools.synthesis.calls.teachers import _limiter, full_text
from data_tools.synthesis.inputs.prompts import Prompt
from data_tools.synthesis.inputs.recipe import Endpoint, Recipe, SampleFile, Stage, Stages
from data_tools.synthesis.inputs.selection import Row, SelectedRows

PNG = b"\x89PNG\r\n"
ROW = Row("s/1", DataSample("1", "s", "How many?", "1", "number", images=(PNG,)), ".")
STAGE = Stage("e", "model", "p.txt", sampling={"temperature": 0.2})
PROMPT = Prompt(None, "Look: {question}")


def key(row=ROW, stage="describe", settings=STAGE, prompt=PROMPT, sample=0, **inputs) -> str:
    return make_request(row, stage, settings, prompt, sample, inputs).key


def test_a_key_changes_with_all_that_decides_the_answer_and_with_nothing_else():
    other_image = replace(ROW, sample=replace(ROW.sample, images=(PNG + b"2",)))
    changed = [
        key(row=replace(ROW, name="s/2")),
        key(row=other_image),
        key(settings=replace(STAGE, model="other")),
        key(settings=replace(STAGE, sampling={"temperature": 0.3})),
        key(prompt=Prompt(None, "See: {question}")),
        key(prompt=Prompt("Be brief.", "Look: {question}")),
        key(sample=1),
        key(stage="reason"),
    ]
    assert len({key(), *changed}) == 1 + len(changed)
    same = [replace(STAGE, endpoint="f"), replace(STAGE, concurrency=1), replace(STAGE, samples=3)]
    assert {key(settings=settings) for settings in same} == {key()}
    assert key(row=other_image, stage="reason") == key(stage="reason")  # text teachers do not get the image
    # a later stage changes exactly where its inputs do
    slots = Prompt(None, "{description}")
    assert key(stage="reason", prompt=slots, description="a") != key(stage="reason", prompt=slots, description="b")


def test_a_key_is_that_of_earlier_versions_so_that_their_journals_go_on():
    # sha256 of the row's name, stage, sample number, model, sampling, turns and the images' sha256, as sorted JSON
    assert key() == "711d5c547b0f4725fe795f29b448f412f8d390f05a1aefc2d13b353854f06b87"


def test_messages_carry_images_as_data_urls():
    request = make_request(ROW, "describe", STAGE, Prompt("Be brief.", "Look: {question}"), 0, {})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}}
    text = {"type": "text", "text": "Look: How many?"}
    assert request.messages() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image, text]},
    ]
    with pytest.raises(ValueError, match="no PNG, JPEG, GIF or WebP"):
        key(row=replace(ROW, sample=replace(ROW.sample, images=(b"BM..",))))


DONE = Completion("k1", "s/1", "describe", 0, "m", "text", "stop", 3, 4, 2, 0.5)
FAILED = Failure("k2", "s/2", "describe", 0, "HTTP 500 (3 requests)", 3)


def test_the_journal_keeps_what_is_recorded(tmp_path):
    async def record(journal: Journal) -> None:
        await asyncio.gather(journal.record(DONE), journal.record(FAILED), journal.record(replace(DONE, key="k3")))

    journal = Journal(tmp_path / "journal.sqlite")
    asyncio.run(record(journal))
    journal.write([replace(DONE, text="paid again")])  # the first answer stays
    journal.close()
    journal = Journal(tmp_path / "journal.sqlite")
    assert journal.get("k1") == DONE and journal.get("k2") == FAILED and journal.get("k4") is None
    usage = journal.usage()["describe"]
    assert (usage.calls, usage.prompt_tokens, usage.completion_tokens, usage.requests) == (2, 6, 8, 4)
    assert journal.requests() == 2 + 2 + 3
    journal.retry_failures()
    assert journal.get("k2") is None and journal.requests() == 7  # tried again, but not forgotten as spent
    journal.close()


def test_a_second_run_in_the_folder_and_a_file_that_is_no_journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    with pytest.raises(ValueError, match="another synthesis is running in this folder"):
        Journal(tmp_path / "journal.sqlite")
    journal.close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "journal.sqlite").write_text("no database, " * 100)
    with pytest.raises(ValueError, match="cannot be opened as a journal"):
        Journal(tmp_path / "other" / "journal.sqlite")


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    journal.write([DONE])
    journal._write.execute("PRAGMA max_page_count = 8")  # sqlite's own limit: the error is that of a full disk
    with pytest.raises(OSError, match="database or disk is full; nothing that was finished is lost"):
        asyncio.run(journal.record(replace(DONE, key="k9", text="x" * 100_000)))
    journal._write.execute("PRAGMA max_page_count = 100000")
    journal.write([replace(DONE, key="k5")])
    assert journal.get("k1") == DONE and journal.get("k9") is None and journal.get("k5") is not None
    journal.close()


WILD = [
    "a\0b",
    "",
    "\r\n \u2028",
    "\U0001f600" * 1000,
    "x" * 5_000_000,
    "'; DROP TABLE calls; --",
    "\ufeff\uffff",
    "NaN",
]


@pytest.mark.parametrize("text", WILD, ids=range(len(WILD)))
def test_any_text_comes_back_from_the_journal_as_it_was(tmp_path, text):
    done = [replace(DONE, text=text, finish=text, model=text), replace(FAILED, error=text)]
    assert read_back(tmp_path, done) == done


def test_what_sqlite_cannot_hold_comes_back_as_documented_and_stops_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.synthesis.calls.journal.LONGEST_TEXT", 10)
    done = [
        replace(DONE, key="k4", text="half \ud800 a", prompt_tokens=10**30, completion_tokens=-(10**30)),
        replace(DONE, key="k5", text="12345678901"),
        replace(FAILED, error="\udc00"),
    ]
    found = read_back(tmp_path, done)
    assert found == [
        replace(done[0], text="half \ufffd a", prompt_tokens=2**53, completion_tokens=-(2**53)),
        replace(done[1], text="1234567890"),
        replace(done[2], error="\ufffd"),
    ]


def read_back(folder, results: list) -> list:
    """What a journal that is opened again knows of `results`, each recorded together with the others."""

    async def record(journal: Journal) -> None:
        await asyncio.gather(*map(journal.record, results))

    journal = Journal(folder / "journal.sqlite")
    asyncio.run(record(journal))
    journal.close()
    journal = Journal(folder / "journal.sqlite")
    found = [journal.get(result.key) for result in results]
    assert journal.usage()["describe"].calls and journal.requests()
    journal.close()
    return found


def test_whatever_the_writer_raises_reaches_all_that_wait_and_the_next_goes_on(tmp_path):
    async def record(journal: Journal) -> list:
        bad: list = [
            replace(DONE, key="k6", text=["a part"]),
            replace(DONE, seconds={}),
        ]  # what no caller may hand over
        found = await asyncio.gather(*map(journal.record, bad), return_exceptions=True)
        await journal.record(DONE)
        return found

    journal = Journal(tmp_path / "journal.sqlite")
    assert [type(error) for error in asyncio.run(record(journal))] == [OSError, OSError]
    assert journal.get("k1") == DONE
    journal.close()


def test_separate_reasoning_comes_before_the_text():
    assert full_text(Reply("\n<answer>1</answer>", "so ")) == "<think>so</think><answer>1</answer>"
    assert full_text(Reply("<think>so</think> 1", "so ")) == "<think>so</think> 1"
    assert full_text(Reply(" 1 ")) == " 1 "


def test_descriptions_of_the_offline_teacher_read_back_into_the_scene():
    rng = random.Random(0)
    for question in questions(0, 40):
        if question.scene:
            assert tiny_texts.read_description(tiny_texts.describe(question.scene)) == question.scene
            wrong = tiny_texts.wrong_scene(question.scene, rng)
            assert wrong != question.scene
            assert tiny_texts.read_description(tiny_texts.describe(wrong)) == wrong
    assert tiny_texts.read_description("nothing") is None


def test_rate_limits_are_spread_over_the_minute_and_shared():
    assert _limiter(None, 1) is None
    fast, slow = _limiter(1200, 2), _limiter(30, 1)
    assert (fast.max_rate, fast.time_period) == (10, 1)  # 1200 a minute for two workers: 10 a second each
    assert (slow.max_rate, slow.time_period) == (1, 2)  # one every two seconds


@pytest.fixture
def three(tmp_path):
    with SampleWriter(tmp_path / "three.parquet") as writer:
        for name in "abc":
            writer.add(DataSample(name, "s", "How many?", "1", "number"))
    return tmp_path / "three.parquet"


def names(path, rows=None, seed=0) -> list[str]:
    sources = {"x": SampleFile(str(path), rows)}
    stages = Stages(STAGE, STAGE, STAGE)
    chosen = SelectedRows(Recipe(sources, {"e": Endpoint("http://127.0.0.1:9")}, stages, seed=seed))
    assert (
        len(chosen) == len(list(chosen)) == sum(len(list(chosen.read(*part[:1], [part[1]]))) for part in chosen.parts())
    )
    return [row.name for row in chosen]


def test_rows_are_chosen_by_the_seed_and_stay_in_order(three):
    assert names(three) == ["x/a", "x/b", "x/c"]
    drawn = {tuple(names(three, 2, seed)) for seed in range(20)}
    assert drawn == {("x/a", "x/b"), ("x/a", "x/c"), ("x/b", "x/c")}
    assert names(three, 2, 1) == names(three, 2, 1)
    with pytest.raises(ValueError, match=r"sources.x.rows is 4, but .*three.parquet has only 3 rows"):
        names(three, 4)


def test_files_that_are_no_source(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"], "text": ["?"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="missing columns source, question.*it has id, text"):
        names(tmp_path / "other.parquet")
    with SampleWriter(tmp_path / "twice.parquet") as writer:
        for _ in range(2):
            writer.add(DataSample("a", "s", "How many?", "1", "number"))
    with pytest.raises(ValueError, match="the id 'a' stands there 2 times"):
        names(tmp_path / "twice.parquet")
