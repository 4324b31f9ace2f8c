"""Checks of a stage's inputs: every mistake a sentence that names the value and the fix."""

import json
import shutil

import pandas as pd
import pytest

from avar_rl.verl_plugin.config.preflight import check_files, check_model


def test_good_files_pass_one_or_several(tiny_world):
    train, val = (str(tiny_world / "data" / f"{name}.parquet") for name in ("rl_train", "rl_val"))
    check_files(train, "data.train_files")
    check_files([train, val], "data.train_files")
    check_files(None, "data.val_files")  # no validation


def test_a_missing_file_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(
        ValueError, match="data.train_files=.*nowhere.parquet: no such file; make one with .*data_tools"
    ):
        check_files(str(tmp_path / "nowhere.parquet"), "data.train_files")


def test_the_one_bad_file_of_several_is_named(tiny_world, tmp_path):
    good = str(tiny_world / "data" / "rl_train.parquet")
    with pytest.raises(ValueError, match="absent.parquet"):
        check_files([good, str(tmp_path / "absent.parquet")], "data.train_files")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        check_files(str(tmp_path), "data.train_files")


def test_a_file_without_rows(tmp_path):
    path = tmp_path / "empty.parquet"
    pd.DataFrame({"prompt": []}).to_parquet(path)
    with pytest.raises(ValueError, match="data.val_files=.*empty.parquet has no rows"):
        check_files(str(path), "data.val_files")


def test_corrupt_files(tiny_world, tmp_path):
    whole = (tiny_world / "data" / "rl_train.parquet").read_bytes()
    for name, content in {"text": b"not parquet at all", "nothing": b"", "cut": whole[: len(whole) // 2]}.items():
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.parquet: not a readable parquet file"):
            check_files(str(path), "data.train_files")


@pytest.fixture
def model(tiny_world, tmp_path):
    """A copy of the miniature's directory, free to be damaged."""
    return shutil.copytree(tiny_world / "base", tmp_path / "model")


def test_a_good_model_passes(tiny_world):
    check_model(str(tiny_world / "base"))


def test_a_hub_name_is_left_to_transformers():
    check_model("Qwen/Qwen2.5-VL-7B-Instruct")


@pytest.mark.parametrize("path", ["/no/such/model", "./outputs/absent", "outputs/tiny/base"])
def test_a_path_that_does_not_exist(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"model.path={path}: no such directory"):
        check_model(path)


def test_a_directory_that_is_no_model(tmp_path):
    with pytest.raises(ValueError, match="has no config.json: not a Hugging Face model directory"):
        check_model(str(tmp_path))


def test_a_model_without_processor(model):
    for name in ("preprocessor_config.json", "processor_config.json"):
        (model / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match="has no processor .*; copy it from the base model"):
        check_model(str(model))


def test_a_model_whose_tokenizer_has_no_qwen_markup(model):
    text = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(text.replace("<|im_start|>", "<|turn|>"))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):  # would add the token again
        if (model / name).is_file():
            settings = json.loads((model / name).read_text())
            for key in ("extra_special_tokens", "additional_special_tokens", "added_tokens_decoder"):
                settings.pop(key, None)
            (model / name).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="has no token '?<.im_start.>'?.*this model type has no span support"):
        check_model(str(model))
