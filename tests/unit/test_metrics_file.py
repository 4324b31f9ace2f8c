"""One metrics file, each step once."""

import json
from types import SimpleNamespace
from typing import BinaryIO

from avar_rl.verl_plugin.watch import metrics_file


def line(step: int, loss: float = 1.0) -> str:
    return json.dumps({"step": step, "data": {"loss": loss}}) + "\n"


def test_steps_after_the_resumed_checkpoint_and_half_a_line_are_dropped(tmp_path):
    path = tmp_path / "sft.metrics.jsonl"
    path.write_text(line(1) + line(2) + line(3) + line(4)[:9])
    metrics_file.keep_until(path, 2)
    assert path.read_text() == line(1) + line(2)
    metrics_file.keep_until(path, 0)
    assert path.read_text() == ""
    metrics_file.keep_until(tmp_path / "none.jsonl", 2)
    assert not (tmp_path / "none.jsonl").exists()


def test_verls_logger_adds_to_the_file(tmp_path, monkeypatch):
    class FileLogger:
        fp: BinaryIO

        def log(self, data, step):
            self.fp.write((json.dumps({"step": step, "data": data}) + "\n").encode())

    tracking = SimpleNamespace(FileLogger=FileLogger)
    metrics_file.add_to_the_file(tracking)
    path = tmp_path / "logs" / "grpo.metrics.jsonl"
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(path))
    tracking.FileLogger("avar_rl", "grpo").log({"loss": 1.0}, 1)
    tracking.FileLogger("avar_rl", "grpo").log({"loss": 1.0}, 2)
    assert path.read_text() == line(1) + line(2)


def test_the_file_is_where_verl_would_put_it(monkeypatch, tmp_path):
    monkeypatch.delenv("VERL_FILE_LOGGER_PATH", raising=False)
    monkeypatch.setenv("VERL_FILE_LOGGER_ROOT", str(tmp_path))
    assert metrics_file.metrics_path("avar_rl", "grpo") == tmp_path / "avar_rl" / "grpo.jsonl"
