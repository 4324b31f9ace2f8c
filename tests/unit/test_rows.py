import pytest

from data_tools.formats.rows import Example, chat_row, read_rows, rl_row, write_rows

RESPONSE = "<think>x</think><answer>3</answer>"
EXAMPLE = Example("a-0", "How many?", "3", images=(b"png",), response=RESPONSE, kind="count")
TEXT_ONLY = Example("a-1", "What is 1 + 2?", "3", response=RESPONSE)
CHOICE = Example("a-2", "Which? A) red B) blue", "B", response=RESPONSE, options=("red", "blue"))


def test_rl_row_has_verl_columns():
    assert rl_row(EXAMPLE, index=7, split="test", data_source="tiny") == {
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
            "answer_type": "",
            "question": "How many?",
            "options": [],
        },
    }


def test_chat_row_has_both_turns():
    row = chat_row(EXAMPLE)
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    assert row["messages"][0]["content"] == "<image>How many?"
    assert row["messages"][1]["content"] == RESPONSE
    assert row["id"] == "a-0"


def test_chat_row_without_response_is_refused():
    with pytest.raises(ValueError, match="row b: a chat row needs a response"):
        chat_row(Example("b", "q", "1"))


def test_image_placeholders():
    assert TEXT_ONLY.prompt == "What is 1 + 2?"
    assert Example("c", "Compare.", "A", images=(b"1", b"2")).prompt == "<image><image>Compare."
    assert Example("d", "Left <image> is?", "A", images=(b"1",)).prompt == "Left <image> is?"


@pytest.mark.parametrize("examples", [[EXAMPLE, TEXT_ONLY], [TEXT_ONLY], [CHOICE, EXAMPLE]])
@pytest.mark.parametrize("form", ["rl", "chat"])
def test_rows_survive_parquet(tmp_path, examples, form):
    rows = [chat_row(e) if form == "chat" else rl_row(e, index=0, split="s", data_source="d") for e in examples]
    path = tmp_path / "deep" / "rows.parquet"
    write_rows(rows, path)
    assert read_rows(path) == rows
    assert [p.name for p in path.parent.iterdir()] == ["rows.parquet"]


def test_a_failed_write_keeps_the_former_file(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    write_rows([chat_row(EXAMPLE)], path)

    def disk_full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_rows([chat_row(TEXT_ONLY)], path)
    assert read_rows(path) == [chat_row(EXAMPLE)]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_verl_reads_the_files(tmp_path):
    import datasets

    path = tmp_path / "rows.parquet"
    write_rows([rl_row(e, index=0, split="s", data_source="d") for e in (EXAMPLE, TEXT_ONLY)], path)
    data = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    assert data[0]["images"] == [{"bytes": b"png"}]
    assert data[1]["images"] == []


def test_a_choice_keeps_its_options():
    from data_tools.formats.sample import Sample
    from rewards.sample import row_options

    sample = Sample("a-3", "set", "Which?", "B", "choice", options=("red", "blue"))
    row = rl_row(sample.example("."), index=0, split="s", data_source="d")
    assert row["prompt"][0]["content"] == "Which?\n(A) red\n(B) blue"
    assert row_options(row["extra_info"]) == ("red", "blue")
    assert row_options(None) == row_options({}) == row_options({"options": None}) == ()


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match="no such data file"):
        read_rows(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="no rows to write"):
        write_rows([], tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(ValueError, match="not a readable parquet file"):
        read_rows(tmp_path / "text.parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="holds no rows"):
        read_rows(tmp_path / "empty.parquet")
