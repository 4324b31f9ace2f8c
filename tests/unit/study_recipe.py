"""A stand-in for a training recipe, made of the real recipes/stages.sh: its stages write small files in no time.

Each stage adds a line to a ledger when it begins and when it ends. It waits for a signal where a file says so.
"""

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RECIPE = """
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
NAME=${NAME:-toy}
OUT=${OUT:-outputs/$NAME}
SEED=${SEED:-0}
LR=${LR:-1}
SFT_ARGS=${SFT_ARGS:-}
PROFILE=cpu
source recipes/stages.sh
recipe_stages() {
  stage data "$PYTHON" recipes/work.py data "$OUT" "$SEED"
  stage sft "$PYTHON" recipes/work.py sft "$OUT" "$LR" $SFT_ARGS
  stage grpo "$PYTHON" recipes/work.py grpo "$OUT" "$@"
  stage evaluation "$PYTHON" recipes/work.py evaluation "$OUT"
}
run_recipe "$@"
"""
WORK = """
import json, pathlib, sys, time
stage, out, *words = sys.argv[1:]
out, here = pathlib.Path(out), pathlib.Path(__file__).parents[1]
def note(what):
    with (here / "ledger").open("a") as ledger:
        ledger.write(f"{what} {stage} {out.name} {' '.join(words)}\\n")
note("begin")
if (here / f"hang-{stage}").exists():
    time.sleep(300)
if (here / f"fail-{stage}").exists():
    print("the disk is full")
    sys.exit(int((here / f"fail-{stage}").read_text()))
if stage == "evaluation":
    right = int((out / "sft").read_text().split()[0]), int((out / "grpo").read_text())
    for name, n in zip(("sft", "grpo"), right):
        folder = out / "evaluation"
        folder.mkdir(exist_ok=True)
        rows = [{"id": f"q{i}", "kind": "even" if i % 2 == 0 else "odd", "sample": sample, "accuracy": float(i < n)}
                for i in range(4) for sample in (None, 0, 1)]
        (folder / f"{name}.responses.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
        share, stat = n / 4, (out / name).stat()
        figures = dict.fromkeys(("accuracy", "accuracy_sampled", "format"), share) | {"vas": 10.0 * n}
        figures |= {"image_mass": 0.5, "system_mass": 0.1, "response_tokens": 7.0, "truncated": 0.0}
        figures |= {"origin": {"model": {"files": {name: [stat.st_size, stat.st_mtime_ns]}}}}
        (folder / f"{name}.json").write_text(json.dumps(figures))
elif stage == "data":
    (out / "data").write_text(words[0])
    (out / "large").write_bytes(bytes(1 << 20))
elif stage == "sft":
    (out / "sft").write_text(str(int(words[0]) % 5))
else:
    (out / "grpo").write_text(str(min(4, int((out / "sft").read_text()) + len(words))))
    if "spoil" in words:
        with (out / "large").open("r+b") as file:
            file.write(b"x")
note("end")
"""


class ToyStudy:
    """A folder with the recipe, and `avar study` run in it on a study of these settings."""

    def __init__(self, folder: Path, **settings):
        self.folder, self.file = folder, folder / "toy.yaml"
        (folder / "recipes").mkdir()
        (folder / "recipes" / "stages.sh").symlink_to(ROOT / "recipes" / "stages.sh")
        (folder / "recipes" / "toy.sh").write_text(RECIPE)
        (folder / "recipes" / "work.py").write_text(WORK)
        setup = folder / "recipes" / "setup.sh"
        setup.write_text("#!/bin/sh\n")  # the environment is there
        setup.chmod(0o755)
        self.write(**settings)

    def write(self, **settings) -> None:
        self.file.write_text(yaml.safe_dump({"recipe": "recipes/toy.sh", **settings}, sort_keys=False))

    def start(self, *options: str, **environment: str) -> subprocess.Popen:
        clean = {name: value for name, value in os.environ.items() if name not in ("OUT", "SEED", "RAY_ADDRESS")}
        clean |= {"AVAR_VENV": str(Path(sys.executable).parents[1]), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        return subprocess.Popen(
            [sys.executable, "-m", "avar_rl", "study", *options],
            cwd=self.folder, env=clean | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *options: str, **environment: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        process = self.start(*(options or (str(self.file),)), **environment)
        out, err = process.communicate(timeout=250)
        return process.returncode, out, err

    def mark(self, name: str, text: str = "") -> Path:
        """`hang-STAGE` or `fail-STAGE`, the latter with the exit status."""
        (self.folder / name).write_text(text)
        return self.folder / name

    def ledger(self, what: str = "end") -> list[str]:
        """Stages that have ended, each with its words, sorted."""
        file = self.folder / "ledger"
        lines = [line.split() for line in file.read_text().splitlines()] if file.is_file() else []
        return sorted(" ".join([line[1], *line[3:]]) for line in lines if line[0] == what)
