"""verl's two row formats: what a row holds, and that files of rows are whole or not there."""

import pytest

from avar_rl.runtime.files import read_parquet
from data_tools.formats.rows import chat_row, rl_row, row_format, with_image_places, write_rows
from rewards.sample import Sample

RESPONSE = "<think>x</think><answer>3</answer>"
PLACE = {"source": "tiny", "index": 7, "split": "test"}
COUNT = rl_row(id="a-0", question="How many?", gold="3", images=(b"png",), kind="count", gold_kind="number", **PLACE)
TEXT_ONLY = rl_row(id="a-1", question="What is 1 + 2?", gold="3", **PLACE)
BOXED = rl_row(
    id="a-4", question="Which?", gold="3", images=(b"a", b"b"), evidence=(((1.0, 2.0, 3.0, 4.5),), ()), **PLACE
)
CHOICE = rl_row(id="a-2", question="Which? A) red B) blue", gold="B", options=("red", "blue"), **PLACE)
COUNT_CHAT = chat_row(id="a-0", question="How many?", response=RESPONSE, images=(b"png",))
TEXT_ONLY_CHAT = chat_row(id="a-1", question="What is 1 + 2?", response=RESPONSE)


def test_rl_row_has_verl_columns():
    assert COUNT == {
        "data_source": "tiny",
        "prompt": [{"role": "user", "content": "<image>How many?"}],
        "images": [{"bytes": b"png"}],
        "ability": "vqa",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {
            "index": 7,
            "split": "test",
            "id": "a-0",
            "kind": "count",
            "gold_kind": "number",
            "question": "How many?",
            "options": [],
            "other_golds": [],
            "evidence": [],
        },
    }


def test_chat_row_has_both_turns():
    turns = [{"role": "user", "content": "<image>How many?"}, {"role": "assistant", "content": RESPONSE}]
    assert COUNT_CHAT == {"messages": turns, "images": [{"bytes": b"png"}], "id": "a-0"}


def test_chat_row_without_response_is_refused():
    with pytest.raises(ValueError, match="row b: a chat row needs a response"):
        chat_row(id="b", question="q", response=None)


def test_image_placeholders():
    assert with_image_places("What is 1 + 2?", 0) == "What is 1 + 2?"
    assert with_image_places("Compare.", 2) == "<image><image>Compare."
    assert with_image_places("Left <image> is?", 1) == "Left <image> is?"


@pytest.mark.parametrize(
    "rows",
    [[COUNT, TEXT_ONLY], [TEXT_ONLY], [CHOICE, COUNT], [BOXED, COUNT], [COUNT_CHAT, TEXT_ONLY_CHAT], [TEXT_ONLY_CHAT]],
)
def test_rows_survive_parquet(tmp_path, rows):
    path = tmp_path / "deep" / "rows.parquet"
    write_rows(rows, path)
    assert read_parquet(path) == rows
    assert [p.name for p in path.parent.iterdir()] == ["rows.parquet"]


def test_a_failed_write_keeps_the_former_file(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    write_rows([COUNT_CHAT], path)

    def disk_full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_rows([TEXT_ONLY_CHAT], path)
    assert read_parquet(path) == [COUNT_CHAT]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_verl_reads_the_files(tmp_path):
    import datasets

    path = tmp_path / "rows.parquet"
    write_rows([COUNT, TEXT_ONLY], path)
    data = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    assert data[0]["images"] == [{"bytes": b"png"}]
    assert data[1]["images"] == []


def test_columns_and_keys_that_rows_bring_are_kept(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    own = COUNT | {"weight": 0.5, "extra_info": COUNT["extra_info"] | {"pass_rate": 0.25}}
    images = pa.large_list(pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())]))
    table = pa.Table.from_pylist([own])
    table = table.set_column(2, "images", pa.array([own["images"]], images))  # as polars types it
    table = table.replace_schema_metadata({"huggingface": '{"info": {"features": {}}}'})
    pq.write_table(table, tmp_path / "own.parquet")
    write_rows([TEXT_ONLY], tmp_path / "plain.parquet")
    write_rows([own, TEXT_ONLY], tmp_path / "out.parquet", like=[tmp_path / "own.parquet", tmp_path / "plain.parquet"])
    first, second = read_parquet(tmp_path / "out.parquet")
    assert first == own | {"images": [{"bytes": b"png", "path": None}]}
    assert second == TEXT_ONLY | {"weight": None, "extra_info": TEXT_ONLY["extra_info"] | {"pass_rate": None}}
    assert pq.read_schema(tmp_path / "out.parquet").metadata is None  # which would say what columns there were


def test_a_choice_keeps_its_options():
    from rewards.sample import row_options

    assert CHOICE["prompt"][0]["content"] == "Which? A) red B) blue"
    assert row_options(CHOICE["extra_info"]) == ("red", "blue")
    assert row_options(None) == row_options({}) == row_options({"options": None}) == ()


def test_other_right_answers_follow_the_gold():
    row = rl_row(id="a-3", question="Who?", gold="Ann Lee", other_golds=("Ann",), **PLACE)
    assert Sample("Who?", "", "Ann Lee", row).golds == ("Ann Lee", "Ann")
    assert (
        Sample("Who?", "", "Ann Lee").golds == Sample("Who?", "", "Ann Lee", {"extra_info": None}).golds == ("Ann Lee",)
    )
    with pytest.raises(ValueError, match="extra_info.other_golds is 'Ann'; it must be a list of texts"):
        _ = Sample("Who?", "", "Ann Lee", {"extra_info": {"other_golds": "Ann"}}).golds


def test_the_format_is_told_by_the_columns():
    assert (row_format(COUNT, "x"), row_format(COUNT_CHAT, "x")) == ("rl", "chat")
    with pytest.raises(ValueError, match="a.parquet: missing columns images; it has messages, text"):
        row_format(["messages", "text"], "a.parquet")


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match="no such data file"):
        read_parquet(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="no rows to write"):
        write_rows([], tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(ValueError, match="not a readable parquet file"):
        read_parquet(tmp_path / "text.parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="holds no rows"):
        read_parquet(tmp_path / "empty.parquet")
