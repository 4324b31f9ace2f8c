"""Parquet files that are damaged or hold what Python lacks: readers say so in one sentence with the file's name."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avar_rl.runtime.files import count_rows, read_parquet
from data_tools.formats.rows import parquet_columns, parquet_rows


def readers(path):
    yield lambda: read_parquet(path)
    yield lambda: (parquet_columns(path), list(parquet_rows(path)))


def says_one_sentence(path):
    for read in readers(path):
        with pytest.raises(ValueError, match=f"^{path}: not a readable parquet file") as caught:
            read()
        assert type(caught.value) is ValueError and "\n" not in str(caught.value)


def test_a_footer_that_is_no_thrift(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"question": ["a", "b"]}), path)
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[-8:-4], "little")
    data[-8 - size : -8] = bytes(255 for _ in range(size))  # "Couldn't deserialize thrift", an OSError
    path.write_bytes(data)
    says_one_sentence(path)
    with pytest.raises(ValueError, match=f"^{path}: not a readable parquet file"):
        count_rows(path)


def test_text_that_is_no_utf8(tmp_path):
    pq.write_table(pa.table({"question": pa.array([b"\xff\xfe"]).view(pa.string())}), tmp_path / "rows.parquet")
    says_one_sentence(tmp_path / "rows.parquet")


def test_a_time_beyond_pythons(tmp_path):
    times = pa.array([2**62], type=pa.timestamp("us"))
    pq.write_table(pa.table({"question": ["a"], "at": times}), tmp_path / "rows.parquet")
    says_one_sentence(tmp_path / "rows.parquet")
