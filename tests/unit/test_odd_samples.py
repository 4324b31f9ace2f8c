"""Files with the columns of samples, but with other values in them: the reader names the sample."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.formats.sample import read_samples

ROW = {
    "id": "s0", "source": "s", "question": "How many?", "options": ["x", "y"], "gold": "A", "gold_kind": "choice",
    "images": [], "response": None, "extra": "{}",
}  # fmt: skip


@pytest.mark.parametrize(
    "odd",
    [
        {"images": [None]},
        {"images": ["a.png"]},
        {"images": 5},
        {"options": ["x", None]},
        {"options": [1, 2]},
        {"options": [], "gold": "5", "gold_kind": "number", "other_golds": [None]},
        {"response": 5},
        {"extra": "[1]"},
        {"extra": '{"a":' * 5000},
        {"extra": {"a": 1}},
    ],
    ids=str,
)
def test_an_odd_value_is_named(tmp_path, odd):
    pq.write_table(pa.Table.from_pylist([ROW | odd]), tmp_path / "samples.parquet")
    with pytest.raises(ValueError, match="sample s0: "):
        list(read_samples(tmp_path / "samples.parquet"))
