"""One metrics file for a stage, `logs/STAGE.metrics.jsonl`, however often it was interrupted: each step once.

verl's logger of files begins each start with an empty file. Here it adds to what is there, from which the steps after
the resumed checkpoint, that are trained again, were dropped. A step is logged before its checkpoint counts as saved
(verl's SFT does so; GRPO: `AnchoredGRPOTrainer._track`), so none is missing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from avar_rl.runtime.files import write_whole


def keep_until(path: Path, step: int) -> None:
    """Drops the lines after `step` from a metrics file, and one that a full disk has cut off; no file is fine."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if (logged := _step(line)) is not None and logged <= step]
    if kept != lines:
        write_whole(path, "".join(kept))


def _step(line: str) -> int | None:
    try:
        return json.loads(line)["step"] if line.endswith("\n") else None
    except ValueError:
        return None


def add_to_the_file(tracking: Any) -> None:
    """Has verl's `FileLogger` (in the module `tracking`) write to the end of its file."""

    class OneFileLogger(tracking.FileLogger):
        def __init__(self, project_name: str, experiment_name: str):
            self.filepath = metrics_path(project_name, experiment_name)
            self.filepath.parent.mkdir(parents=True, exist_ok=True)
            self.fp = self.filepath.open("ab", buffering=0)

    tracking.FileLogger = OneFileLogger


def metrics_path(project: str, experiment: str) -> Path:
    """The file that verl's variables name for a run."""
    if path := os.environ.get("VERL_FILE_LOGGER_PATH"):
        return Path(path)
    return Path(os.environ.get("VERL_FILE_LOGGER_ROOT", ".")).expanduser() / project / f"{experiment}.jsonl"
