"""The parts of the check, and one part run in a process of its own, which is stopped at its limit whatever it does."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from benchmarks.gpu_check.results import DONE, FAILED, TIMED_OUT, PartFindings, Setting

ROOT = Path(__file__).parents[2]
NO_DEVICE = 2  # exit status of a part that needs a CUDA device and finds none


@dataclass(frozen=True)
class CheckPart:
    """number: as on the command line. module: of this package, with `run(findings, setting)`. seconds: its limit."""

    number: str
    module: str
    title: str
    seconds: int
    interprets: bool = False  # Triton's kernels, in its interpreter where there is no GPU


PARTS = (
    CheckPart("1", "kernels", "versions; the log-sum-exp of every attention kernel", 60),
    CheckPart("2", "span_mass", "span mass in Triton against float64", 90, interprets=True),
    CheckPart("3", "guided_step", "verl's engine: guided SFT step", 210),
    CheckPart("4", "policy_update", "verl's engine: old log-probs with masses, policy update", 150),
    CheckPart("5", "recording", "what recording costs at Qwen2.5-VL-7B's shape", 240),
    CheckPart("6", "adapters", "LoRA: step, export, reload", 90),
)


def run_here(part: CheckPart, path: Path, setting: Setting) -> int:
    """Runs a part in this process. Returns the exit status; whatever goes wrong ends the process with its traceback."""
    import torch

    if not setting.miniature and not torch.cuda.is_available():
        print("no CUDA device: --miniature runs every part in a small shape on the CPU", file=sys.stderr)
        return NO_DEVICE
    importlib.import_module(f"benchmarks.gpu_check.{part.module}").run(PartFindings(path, part.number), setting)
    return 0


def run_apart(part: CheckPart, path: Path, setting: Setting, factor: float) -> int:
    """Runs a part in a process of its own, with all its output in a log; says in the file how it went.

    Args:
        factor: of the part's limit, for slow machines.

    Returns: the exit status of the part; NO_DEVICE ends the whole check.
    """
    log = setting.work / f"part{part.number}.log"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--part", part.number, "--out", str(path)]
    command += ["--work", str(setting.work), *(["--miniature"] if setting.miniature else [])]
    findings, begun, limit = PartFindings(path, part.number), monotonic(), part.seconds * factor
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(part, setting), stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    seconds = round(monotonic() - begun, 1)
    if status == 0:
        findings.status(DONE, seconds=seconds)
    elif status is None:
        findings.status(TIMED_OUT, seconds=seconds, error=f"stopped at its limit of {limit:g} s\n{_tail(log)}")
    else:
        findings.status(FAILED, seconds=seconds, error=_tail(log) or f"ended with status {status}")
    return NO_DEVICE if status == NO_DEVICE else 0


def _environment(part: CheckPart, setting: Setting) -> dict[str, str]:
    found = dict(os.environ)
    found["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [found.get("PYTHONPATH")])])
    found["HF_HUB_OFFLINE"] = "1"
    if found.pop("PYTHONDONTWRITEBYTECODE", ""):  # six processes compile the same packages; once is enough
        found["PYTHONPYCACHEPREFIX"] = str(setting.work / "bytecode")
    if setting.miniature:
        found |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        if part.interprets:
            found["TRITON_INTERPRET"] = "1"
    return found


def _end(process: subprocess.Popen) -> None:
    """Ends the part and whatever it started; a call into CUDA that hangs heeds nothing gentler."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all of it has ended
    process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-25:])
