"""Paths of a stage: absolute for workers elsewhere, and logs that never land in the current directory."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from avar_rl.verl_plugin.config import environment
from avar_rl.verl_plugin.config.paths import LOG_VARIABLES, RUN_FOLDER, RUN_STAGE, make_absolute, prepare_logs


@pytest.fixture(autouse=True)
def no_variables(monkeypatch, tmp_path):
    """None of the variables is set, and what a test sets goes with it; the current directory is empty."""
    for name in (*LOG_VARIABLES, RUN_FOLDER, RUN_STAGE):
        monkeypatch.setenv(name, "")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def stage(folder: Path | str):
    return OmegaConf.create({"trainer": {"default_local_dir": str(folder)}})


def test_paths_become_absolute_and_hub_names_stay(tmp_path):
    here = tmp_path / "here"
    (here / "base").mkdir()
    lines = {"format": 0.1, "own": {"weight": 1, "path": "plug/own.py"}, "off": {"weight": 1, "path": None}}
    config = OmegaConf.create(
        {
            "avar": {"rewards": lines, "rollouts": {"dir": "rollouts"}},
            "data": {"train_files": ["a.parquet", "/b.parquet"], "val_files": "hdfs://c"},
            "model": {"path": "base"},
            "actor_rollout_ref": {"model": {"path": "Qwen/Qwen2.5-VL-7B-Instruct"}},
            "trainer": {"default_local_dir": "checkpoints/sft", "resume_from_path": None},
        }
    )
    make_absolute(config)
    assert config.avar.rewards == lines | {"own": {"weight": 1, "path": f"{here}/plug/own.py"}}
    assert config.avar.rollouts.dir == f"{here}/rollouts"
    assert config.data == {"train_files": [f"{here}/a.parquet", "/b.parquet"], "val_files": "hdfs://c"}
    assert (config.model.path, config.actor_rollout_ref.model.path) == (f"{here}/base", "Qwen/Qwen2.5-VL-7B-Instruct")
    assert config.trainer == {"default_local_dir": f"{here}/checkpoints/sft", "resume_from_path": None}
    make_absolute(OmegaConf.create({"avar": {}}))


def test_logs_lie_beside_the_checkpoints(tmp_path):
    prepare_logs(stage(tmp_path / "run"), "sft")
    assert os.environ["VERL_FILE_LOGGER_PATH"] == f"{tmp_path}/run/logs/sft.metrics.jsonl"
    assert os.environ["TENSORBOARD_DIR"] == f"{tmp_path}/run/tensorboard/sft"
    assert os.environ["WANDB_DIR"] == f"{tmp_path}/run" and os.environ["SWANLAB_LOG_DIR"] == f"{tmp_path}/run/swanlog"
    assert {name: os.environ[name] for name in LOG_VARIABLES if os.environ[name]}.items() <= (
        environment.forwarded().items()  # Ray workers on other nodes write there, too
    )


def test_a_resumed_stage_goes_on_with_its_metrics_file(tmp_path, monkeypatch):
    for _ in range(2):
        monkeypatch.setenv("VERL_FILE_LOGGER_PATH", "")
        prepare_logs(stage(tmp_path), "grpo")
        path = Path(os.environ["VERL_FILE_LOGGER_PATH"])
        assert path == tmp_path / "logs" / "grpo.metrics.jsonl"
        path.touch()


def test_a_run_of_several_stages_keeps_its_logs_together(tmp_path, monkeypatch):
    monkeypatch.setenv(RUN_FOLDER, str(tmp_path / "run"))
    prepare_logs(stage(tmp_path / "run/checkpoints/grpo"), "grpo")
    assert os.environ["VERL_FILE_LOGGER_PATH"] == f"{tmp_path}/run/logs/grpo.metrics.jsonl"


def test_a_recipe_that_trains_twice_in_one_way_has_logs_of_each_stage(tmp_path, monkeypatch):
    monkeypatch.setenv(RUN_FOLDER, str(tmp_path))
    for name in ("pretrain", "sft"):
        for variable in LOG_VARIABLES:
            monkeypatch.setenv(variable, "")
        monkeypatch.setenv(RUN_STAGE, name)
        prepare_logs(stage(tmp_path / "checkpoints" / name), "sft")
        assert os.environ["VERL_FILE_LOGGER_PATH"] == f"{tmp_path}/logs/{name}.metrics.jsonl"
        assert os.environ["TENSORBOARD_DIR"] == f"{tmp_path}/tensorboard/{name}"


def test_what_the_caller_has_set_stands_and_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", "mine/metrics.jsonl")
    monkeypatch.setenv("TENSORBOARD_DIR", "/elsewhere")
    prepare_logs(stage(tmp_path), "sft")
    assert os.environ["VERL_FILE_LOGGER_PATH"] == f"{tmp_path}/here/mine/metrics.jsonl"
    assert os.environ["TENSORBOARD_DIR"] == "/elsewhere" and (tmp_path / "here/mine").is_dir()


def test_a_folder_for_metrics_files_is_left_to_verl(tmp_path, monkeypatch):
    monkeypatch.setenv("VERL_FILE_LOGGER_ROOT", "metrics")
    prepare_logs(stage(tmp_path), "sft")
    assert os.environ["VERL_FILE_LOGGER_ROOT"] == f"{tmp_path}/here/metrics"
    assert not os.environ["VERL_FILE_LOGGER_PATH"]


def test_verls_trackers_write_nothing_into_the_current_directory(tmp_path, monkeypatch):
    prepare_logs(stage(tmp_path / "run"), "sft")
    from verl.utils.tracking import Tracking

    tracking = Tracking("avar_rl", "sft", default_backend=["file", "tensorboard"])
    tracking.log({"train/loss": 1.5}, step=1)
    tracking.finish()
    assert list((tmp_path / "here").iterdir()) == []
    assert (tmp_path / "run/logs/sft.metrics.jsonl").read_text() == '{"step":1,"data":{"train/loss":1.5}}\n'
    assert list((tmp_path / "run/tensorboard/sft").glob("events.out.*"))
