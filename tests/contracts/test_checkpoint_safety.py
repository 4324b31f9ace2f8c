"""A full disk while saving, and signals: nothing that was saved is lost, and the same command carries on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from avar_rl.estimate import FP32, checkpoint_bytes, states
from avar_rl.export import export
from avar_rl.shards import merge_shards
from avar_rl.verl_plugin.recipe_check.model_sizes import model_sizes

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class Training:
    """SFT of `steps` steps of 8 rows, saved every `save` steps. Every start is the very same command, in `cwd`."""

    def __init__(self, world: Path, folder: Path, steps: int, save: int):
        self.base, self.checkpoints, self.cwd = world / "base", folder / "checkpoints", folder / "elsewhere"
        self.cwd.mkdir()
        data = world / "data" / "sft_train.parquet"
        self.arguments = [str(ROOT / "recipes/config/tiny_sft"), "--profile", "cpu", f"model.path={self.base}"]
        self.arguments += [f"data.train_files={data}", "data.num_workers=1"]
        self.arguments += ["data.train_batch_size=8", "data.micro_batch_size_per_gpu=8", "trainer.n_gpus_per_node=1"]
        self.arguments += [f"trainer.total_training_steps={steps}", f"trainer.save_freq={save}"]
        self.arguments += [f"trainer.default_local_dir={self.checkpoints}"]

    def start(self, full_at: str = "") -> subprocess.Popen:
        """`full_at`: part of the path of the file at which the disk is full."""
        command = [sys.executable, str(ROOT / "tests/contracts/sft_with_faults.py"), full_at, *self.arguments]
        variables = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            command, env={**os.environ, **variables}, cwd=self.cwd, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def tracked(self) -> int:
        return int((self.checkpoints / "latest_checkpointed_iteration.txt").read_text())

    def steps_logged(self) -> list[int]:
        """Steps of all starts, in the order of the one metrics file."""
        files = list((self.checkpoints / "logs").glob("*"))
        assert len(files) <= 1
        return [json.loads(line)["step"] for file in files for line in file.read_text().splitlines()]

    def export(self, out: Path) -> dict:
        export(self.checkpoints, out, str(self.base))
        return load_file(out / "model.safetensors")


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and standard error."""
    try:
        _, stderr = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, stderr


def test_a_full_disk_and_sigterm_lose_nothing_and_the_same_command_carries_on(tiny_world, tmp_path):
    training = Training(tiny_world, tmp_path, steps=24, save=8)

    status, stderr = finish(training.start(full_at="global_step_16/optim"))
    assert status == 1 and "No space left on device" in stderr
    assert training.tracked() == 8 and training.steps_logged() == list(range(1, 17))
    of_step_8 = training.export(tmp_path / "model")

    process = training.start()
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Updated checkpoint tracker"):
            break
    os.killpg(process.pid, signal.SIGTERM)  # as schedulers do: to every process of the group
    status, stderr = finish(process)
    assert status == 130, stderr[-4000:]
    assert f"removed {training.checkpoints}/global_step_16, which an interrupted saving has left" in stderr
    stopped_at = training.tracked()
    assert stderr.count(f"stopped by a signal after step {stopped_at}, whose checkpoint is saved") == 1
    assert "Traceback" not in stderr
    assert stopped_at > 16 and training.steps_logged() == list(range(1, stopped_at + 1))

    status, stderr = finish(training.start())
    assert status == 0, stderr[-4000:]
    assert training.tracked() == 24 and training.steps_logged() == list(range(1, 25))
    of_step_24 = training.export(tmp_path / "model")
    assert any(not of_step_8[name].equal(of_step_24[name]) for name in of_step_8)
    # also those of earlier starts count: two are kept
    assert {folder.name for folder in training.checkpoints.glob("global_step_*")} == {
        f"global_step_{stopped_at}",
        "global_step_24",
    }
    assert not list(training.cwd.iterdir())  # no log, no checkpoint lands in the current directory


@pytest.mark.long
def test_a_disk_full_at_the_last_file_of_a_checkpoint_leaves_the_previous_one(tiny_world, tmp_path):
    training = Training(tiny_world, tmp_path, steps=2, save=1)
    status, stderr = finish(training.start(full_at="global_step_2/data_0.pt"))
    assert status == 1 and "No space left on device" in stderr
    assert training.tracked() == 1
    training.export(tmp_path / "model")


@pytest.mark.long
def test_what_was_stopped_at_the_end_of_an_epoch_goes_on_with_the_rows_of_the_next(tiny_world, tmp_path):
    """Two epochs of two steps; stopped after the first, the second is to be what it is without a stop."""
    short = ["data.train_max_samples=16", "trainer.total_epochs=2"]
    tokens = {}
    for name, ends in (("whole", [4]), ("stopped", [2, 4])):
        folder = tmp_path / name
        folder.mkdir()
        training = Training(tiny_world, folder, steps=4, save=1)
        training.arguments += short
        for end in ends:
            training.arguments.append(f"trainer.total_training_steps={end}")
            status, stderr = finish(training.start())
            assert status == 0, stderr[-4000:]
        (log,) = (training.checkpoints / "logs").iterdir()
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        tokens[name] = [(line["step"], line["data"]["train/global_tokens"]) for line in lines]
    assert [step for step, _ in tokens["whole"]] == [1, 2, 3, 4]
    assert tokens["stopped"] == tokens["whole"]


TWO_RANKS = ["trainer.n_gpus_per_node=2", "data.micro_batch_size_per_gpu=4"]


@pytest.fixture(scope="module")
def undisturbed(tiny_world, tmp_path_factory):
    """Twenty steps of two ranks, of which the whole model is saved, too."""
    training = Training(tiny_world, tmp_path_factory.mktemp("undisturbed"), steps=20, save=20)
    training.arguments += [*TWO_RANKS, "checkpoint.save_contents=[model,optimizer,extra,hf_model]"]
    status, stderr = finish(training.start())
    assert status == 0, stderr[-4000:]
    return training


@pytest.mark.long
def test_ctrl_c_to_two_ranks_saves_and_the_rest_ends_in_the_same_weights(undisturbed, tiny_world, tmp_path):
    training = Training(tiny_world, tmp_path, steps=20, save=20)
    training.arguments += TWO_RANKS
    process = training.start()
    deadline = time.monotonic() + 180
    while not training.steps_logged() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to every process of the group
    status, stderr = finish(process)
    assert status == 130, stderr[-4000:]
    stopped_at = training.tracked()
    assert stderr.count(f"stopped by a signal after step {stopped_at}, whose checkpoint is saved") == 1
    assert stderr.splitlines()[-1].startswith("stopped by a signal")  # and not torchrun's account of it
    assert training.steps_logged() == list(range(1, stopped_at + 1)) and stopped_at < 20

    status, stderr = finish(training.start())
    assert status == 0, stderr[-4000:]
    assert training.steps_logged() == list(range(1, 21))
    resumed, whole = tmp_path / "resumed.safetensors", tmp_path / "whole.safetensors"
    merge_shards(training.checkpoints / "global_step_20", resumed)
    merge_shards(undisturbed.checkpoints / "global_step_20", whole)
    resumed, whole = load_file(resumed), load_file(whole)
    assert resumed.keys() == whole.keys() and all(resumed[name].equal(whole[name]) for name in whole)


def test_shards_of_two_ranks_are_what_verl_merges_and_as_large_as_estimated(undisturbed, tmp_path):
    training = undisturbed
    step = training.checkpoints / "global_step_20"
    merge_shards(step, tmp_path / "merged.safetensors")
    ours = load_file(tmp_path / "merged.safetensors")
    # transformers writes some names otherwise than its modules have them, and reads both
    verls = AutoModelForImageTextToText.from_pretrained(step / "huggingface", dtype=torch.float32).state_dict()
    assert ours.keys() == verls.keys() and all(ours[name].equal(verls[name]) for name in ours)

    sizes, _ = model_sizes(str(training.base))
    parameters, _, moments = states(sizes, FP32)
    assert sum(tensor.nbytes for tensor in ours.values()) == parameters
    # AdamW keeps its step in 4 bytes for each tensor and rank; the estimate counts the ranks' copies once
    saved = [local_bytes(step / f"optim_world_size_2_rank_{rank}.pt") for rank in (0, 1)]
    assert sum(saved) == moments + 2 * FP32 * sizes.tensors
    files = sum(file.stat().st_size for kind in ("model", "optim") for file in step.glob(f"{kind}_*.pt"))
    assert 1 <= files / checkpoint_bytes(sizes, FP32) < 1.25  # names and alignment, 4 * 187 tensors of 5 kB on average


def local_bytes(file: Path) -> int:
    """Bytes of the tensors, or of the rank's part of them, in a file of verl's optimizer state."""
    state = torch.load(file, weights_only=False)["state"]
    tensors = [tensor for values in state.values() for tensor in values.values()]
    return sum(getattr(tensor, "_local_tensor", tensor).nbytes for tensor in tensors)
