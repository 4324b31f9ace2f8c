"""Which checkpoint is resumed, and what of an earlier start is removed."""

import zipfile
from pathlib import Path

import pytest

from avar_rl.verl_plugin import checkpoints

KINDS = ("model", "optim", "extra_state")


def save(folder: Path, step: int, ranks: int = 2, kinds=KINDS, actor: str = "", data: str = "data_0.pt") -> Path:
    """A checkpoint as verl writes it, with archives of one small member for the tensors."""
    checkpoint = folder / f"global_step_{step}"
    for kind in kinds:
        for rank in range(ranks):
            archive(checkpoint / actor / f"{kind}_world_size_{ranks}_rank_{rank}.pt")
    if data:
        archive(checkpoint / data)
    return checkpoint


def archive(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", "x" * 100)


def steps(folder: Path) -> list[int]:
    return checkpoints.saved_steps(folder)


def test_the_tracked_checkpoint_is_resumed_and_nothing_said(tmp_path):
    save(tmp_path, 8)
    save(tmp_path, 16)
    checkpoints.write_tracker(tmp_path, 16)
    assert checkpoints.step_to_resume(tmp_path) == (16, [])
    assert steps(tmp_path) == [8, 16]


def test_nothing_saved_is_a_beginning(tmp_path):
    assert checkpoints.step_to_resume(tmp_path) == (0, [])
    assert checkpoints.step_to_resume(tmp_path / "nowhere") == (0, [])


def test_what_an_interrupted_saving_left_is_removed(tmp_path):
    save(tmp_path, 8)
    checkpoints.write_tracker(tmp_path, 8)
    save(tmp_path, 13, kinds=("model",))
    step, said = checkpoints.step_to_resume(tmp_path)
    assert step == 8 and steps(tmp_path) == [8]
    assert said == [
        f"removed {tmp_path}/global_step_13, which an interrupted saving has left "
        f"({tmp_path}/global_step_13 has no optim_world_size_*.pt)"
    ]


@pytest.mark.parametrize("actor", ["", "actor"])
def test_a_checkpoint_that_is_cut_off_is_passed_over_for_the_one_before(tmp_path, actor):
    save(tmp_path, 8, actor=actor)
    bad = save(tmp_path, 16, actor=actor) / actor / "model_world_size_2_rank_1.pt"
    checkpoints.write_tracker(tmp_path, 16)
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    step, said = checkpoints.step_to_resume(tmp_path)
    assert step == 8 and checkpoints.tracked_step(tmp_path) == 8
    assert said == [f"{bad} is cut off or damaged; resuming from the checkpoint of step 8"]
    # it stays for whoever wants to look at it, until the next start
    assert steps(tmp_path) == [8, 16]
    assert checkpoints.step_to_resume(tmp_path)[0] == 8 and steps(tmp_path) == [8]


def test_without_another_one_training_begins_anew(tmp_path):
    save(tmp_path, 8, data="")
    checkpoints.write_tracker(tmp_path, 8)
    step, said = checkpoints.step_to_resume(tmp_path)
    assert step == 0 and checkpoints.tracked_step(tmp_path) is None
    assert said == [
        f"{tmp_path}/global_step_8 has no data*.pt, the place in the data; resuming from nothing: there is no other "
        "checkpoint that is whole"
    ]


def test_an_empty_tracker_gives_the_newest_whole_checkpoint(tmp_path):
    save(tmp_path, 8)
    save(tmp_path, 16)
    (tmp_path / checkpoints.TRACKER).write_text("")
    step, said = checkpoints.step_to_resume(tmp_path)
    assert step == 16 and said == [
        f"{tmp_path / checkpoints.TRACKER} names no step; resuming from the checkpoint of step 16"
    ]
    assert (tmp_path / checkpoints.TRACKER).read_text() == "16"


def test_a_rank_without_its_file_and_a_broken_configuration_are_faults(tmp_path):
    checkpoint = save(tmp_path, 4)
    (checkpoint / "optim_world_size_2_rank_1.pt").unlink()
    assert checkpoints.fault(checkpoint) == f"{checkpoint} has no optim_world_size_2_rank_1.pt"
    assert checkpoints.fault(checkpoint, ["model", "hf_model"]) is None
    (checkpoint / "huggingface").mkdir()
    (checkpoint / "huggingface" / "config.json").write_text('{"model_type": ')
    damaged = checkpoint / "huggingface" / "config.json"
    assert checkpoints.fault(checkpoint, ["model"]) == f"{damaged} is cut off or damaged"


def test_of_a_checkpoint_that_verl_gave_up_the_place_in_the_data_goes_too(tmp_path):
    save(tmp_path, 1, kinds=(), data="data.pt")
    save(tmp_path, 2, kinds=(), data="data.pt").joinpath("actor").mkdir()
    save(tmp_path, 3, actor="actor", data="data.pt")
    checkpoints.remove_remains(tmp_path)
    assert steps(tmp_path) == [3]


def test_a_disk_without_room_for_a_checkpoint_is_found_before_it_is_needed(tmp_path, monkeypatch):
    size = sum(path.stat().st_size for path in save(tmp_path, 8).rglob("*.pt"))
    disk = checkpoints.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder: disk._replace(free=size - 1))
    with pytest.raises(ValueError, match=r"a checkpoint takes [\d.e-]+ GB, and trainer.default_local_dir="):
        checkpoints.check_room(tmp_path, None, kept=2)
    checkpoints.check_room(tmp_path, None, kept=1)  # the old one goes first
    with pytest.raises(ValueError, match="has room for"):
        (tmp_path / "base").mkdir()
        (tmp_path / "base" / "model.safetensors").write_bytes(b"x" * (size + 1))
        checkpoints.check_room(tmp_path / "new", tmp_path / "base", kept=2)


def test_a_full_disk_is_told_from_other_errors_whatever_the_error_says(tmp_path, monkeypatch):
    torchs = RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")
    disk = checkpoints.shutil.disk_usage(tmp_path)
    for free, error, full in [
        (10**9, torchs, False),
        (10**6, torchs, True),
        (10**9, OSError(28, "No space left on device"), True),
    ]:
        monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder, free=free: disk._replace(free=free))
        said = checkpoints.full_disk(tmp_path, error)
        assert said.startswith(f"No space left on device for {tmp_path}: ") if full else said == ""
    assert checkpoints.full_disk(tmp_path / "nowhere", torchs) == ""


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"nothing can be written to trainer.default_local_dir={tmp_path}/file/sft "):
        checkpoints.check_room(tmp_path / "file" / "sft", None, kept=2)
