"""A stage played by vLLM engines inside Ray, on the CPU with the miniature model: every row is accounted for."""

import io
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from avar_rl.runtime.environment import CPU_VARIABLES, VARIABLES
from data_tools.synthesis.inputs.recipe import load_recipe
from data_tools.synthesis.inputs.selection import SelectedRows
from data_tools.synthesis.outcomes.stages import Tracer

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "config" / "synthesis" / "tiny.yaml"


def overrides(stage: str, world: Path, base: Path, url: str, max_model_len: int) -> list[str]:
    """Four rows of the miniature's world, `stage` played by the model at `base`."""
    engine = f"{{max_model_len: {max_model_len}, dtype: float32, enforce_eager: true, max_num_seqs: 8}}"
    placed = f"{{batch_size: 4, engine: {engine}, placement: {{bundles: [{{CPU: 0.5}}]}}}}"
    own = [f"model={base}", "sampling.max_tokens=16", f"ray_engine={placed}"]
    paths = [f"sources.tiny_world.path={world}/source.parquet", f"filters.tokenizer={world}/tokenizer"]
    return [f"stages.{stage}.{item}" for item in own] + paths + ["sources.tiny_world.rows=4", f"{URL}={url}"]


URL = "endpoints.offline.base_url"


def run(settings: list[str], out: Path) -> tuple[list[dict], list[tuple]]:
    """The outcomes of the rows, and (stage, prompt tokens, completion tokens) of the calls."""
    command = [sys.executable, "-m", "data_tools.synthesis", str(RECIPE), "--out", str(out), "--ray", "local"]
    environment = {**os.environ, **VARIABLES, **CPU_VARIABLES, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *settings], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=540
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = [json.loads(line) for line in (out / "outcomes.jsonl").read_text().splitlines()]
    assert len({line["row"] for line in lines}) == len(lines) == 4
    connection = sqlite3.connect(out / "journal.sqlite")
    calls = connection.execute("SELECT stage, prompt_tokens, completion_tokens FROM calls").fetchall()
    connection.close()
    return lines, calls


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_engine_of_ray_answers_what_fits_and_says_what_does_not(
    synthesis_world, tiny_world, offline_teacher, tmp_path
):
    url, server = offline_teacher(failing=0.0, bad=0.0)
    settings = overrides("reason", synthesis_world, tiny_world / "base", url, 465)  # its prompts have 440 to 473 tokens
    lines, calls = run(settings, tmp_path / "out")
    failed = [line for line in lines if line["outcome"] == "failed"]
    assert 1 <= len(failed) <= 3 and all("context length is 465 tokens" in line["reason"] for line in failed)
    reasoned = [(given, made) for stage, given, made in calls if stage == "reason"]
    assert len(reasoned) == 2 * (4 - len(failed))
    assert all(0 < made <= 16 and given + made <= 465 for given, made in reasoned)
    assert all(how == "ok" for _, how in server.log) and len(server.log) == len(calls) - len(reasoned)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_engine_of_ray_sees_the_images(synthesis_world, tiny_world, offline_teacher, tmp_path):
    from PIL import Image
    from transformers import AutoProcessor

    url, server = offline_teacher(failing=0.0, bad=0.0)
    settings = overrides("describe", synthesis_world, tiny_world / "base", url, 1024)
    lines, calls = run(settings, tmp_path / "out")
    assert {(line["outcome"], line["reason"]) for line in lines} == {("filtered", "cut_off")}
    recipe, processor = load_recipe(RECIPE, settings), AutoProcessor.from_pretrained(tiny_world / "base")
    lengths = []
    for row in SelectedRows(recipe):
        [request] = Tracer(recipe, len).needed(row, {}.get)
        turns = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in request.turns]
        turns[-1]["content"].insert(0, {"type": "image"})
        written = processor.apply_chat_template(turns, add_generation_prompt=True)
        images = [Image.open(io.BytesIO(image)) for image in request.images]
        lengths.append(len(processor(text=[written], images=images)["input_ids"][0]))
    assert sorted(calls) == sorted(("describe", given, 16) for given in lengths) and not server.log
