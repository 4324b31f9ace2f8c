"""What of a stage's output a person follows on the console; its log has every byte.

Shown: what this project tells (`tell`), without the prefix that Ray puts before a worker's lines; what the stage's own
process says, errors and their causes among it; each warning of a library once. Left to the log: progress bars, the
information lines of libraries, configurations that verl prints, and whatever else Ray's workers say.
"""

import os
import re
from pathlib import Path
from typing import BinaryIO

MARK = "avar: "  # begins every line that this project's trainers tell

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_WORKER = re.compile(r"^\((?:[\w.:]+ )?(?:[\w-]+=[\w.-]+(?:, )?)+\) ")  # (TaskRunnerV1 pid=5663, ip=10.0.0.2)
_WARNING = re.compile(r"^\S+:\d+: \w*Warning: |\bWARNING\b|^(\[rank\d+\]:)?\[?W\d{4} |Warning: ")
_PROGRESS = re.compile(r"^.*\d+%\|[^\]]*\](?=.)")  # tqdm's bar, where something else was said on its line
_NOISE = re.compile(
    r"^(\x1b\[[0-9;]*m)*(INFO|DEBUG)\b"  # Python's logging, as verl and vLLM format it
    r"|^(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d\S*\s+(INFO|DEBUG)\b"  # Ray's and transformers'
    r"|^(\[rank\d+\]:)?\[?I\d{4} "  # torch's
    r"|\d+%\|"  # tqdm
    r"|^\{'"  # the configuration, which verl prints
    r"|\d+ examples/s\]$|, \?it/s\]$|it/s\]$"  # datasets' and vLLM's progress
    # what verl's SFT prints in each rank
    r"|^(dataset len: |Monkey patch |Skipping monkey patch |Before FSDP, |After FSDP, |Total steps: |Found checkpoint)"
    r"|^\w+ contains [\d.]+[KMB] parameters$|^(Saving tensorboard log|Creating file logger|Saved dataloader state) "
    r"|^(Updated checkpoint tracker: |Total time for train steps: |Final validation metrics: |\[validate_config\])"
)


def tell(text: str) -> None:
    """Prints lines that a person is to see, from a trainer, whichever process and machine it runs in."""
    print("\n".join(MARK + line for line in text.splitlines()), flush=True)


class Console:
    """Writes what a stage says to its log, and a part of it to the console.

    Raises (when made): OSError, the log cannot be written.
    """

    def __init__(self, descriptor: int, log: Path | None):
        self._descriptor, self._path = descriptor, log
        self._log: BinaryIO | None = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._log = log.open("ab", buffering=0)
        self._rest = b""
        self._seen: set[str] = set()
        self._below_warning = False
        self._left_out = 0

    def write(self, said: bytes) -> None:
        """Takes what the stage has said, in pieces of any length."""
        if self._log is not None:
            self._log.write(said)
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            self._line(line)

    def close(self, succeeded: bool = True) -> None:
        """Says what is left, and how much only the log has; not behind the cause of a failure, which is to be last."""
        if self._rest:
            self._line(self._rest)
        if succeeded and self._left_out and self._path is not None:
            self._show(f"({self._left_out} lines of libraries are in {self._path} only)")
        if self._log is not None:
            self._log.close()

    def _line(self, raw: bytes) -> None:
        text = raw.decode(errors="replace").rstrip("\r").rpartition("\r")[2]  # the last state of a progress bar
        shown = self.shown(text)
        if shown is None:
            self._left_out += bool(text.strip())
        else:
            self._show(shown)

    def shown(self, line: str) -> str | None:
        """What the console shows of a line; None: nothing."""
        plain = _COLOUR.sub("", line)
        from_worker = _WORKER.match(plain) is not None
        while match := _WORKER.match(plain):  # a worker's worker has two
            plain = plain[match.end() :]
        plain, bars = _PROGRESS.subn("", plain)
        if plain.startswith(MARK):
            return plain.removeprefix(MARK)
        if self._below_warning and plain.startswith("  "):  # the source line of a Python warning
            return None
        self._below_warning = False
        if _WARNING.search(plain):
            self._below_warning = True
            alike = re.sub(r"\d+", "", plain)
            if alike in self._seen:
                return None
            self._seen.add(alike)
            return plain
        if from_worker or _NOISE.search(plain):
            return None
        return plain if bars else line

    def _show(self, text: str) -> None:
        try:
            os.write(self._descriptor, f"{text}\n".encode())
        except BrokenPipeError:  # nobody reads the console any more; the stage goes on, and its log with it
            self._descriptor = os.open(os.devnull, os.O_WRONLY)
