"""Checkpoint -> Hugging Face directory, from checkpoints laid out as verl's trainers lay them out."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avar_rl.export import export, latest_weights, main


def make_checkpoint(checkpoints: Path, base: Path, step: int, *, stage: str = "sft", shift: float = 0.0) -> Path:
    """A finished checkpoint: the base's weights moved by `shift`, marked bfloat16 as verl marks them. Its folder."""
    folder = checkpoints / f"global_step_{step}" / ("actor/huggingface" if stage == "grpo" else "huggingface")
    folder.mkdir(parents=True)
    weights = {name: tensor + shift for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text()) | {"dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    (checkpoints / "latest_checkpointed_iteration.txt").write_text(str(step))
    return folder


def assert_weights(out: Path, base: Path, shift: float, dtype: torch.dtype = torch.float32) -> None:
    written, expected = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    assert written.keys() == expected.keys()
    for name, tensor in written.items():
        assert tensor.dtype == dtype
        torch.testing.assert_close(tensor, (expected[name] + shift).to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_exports_the_newest_complete_checkpoint(stage, tiny_world, tmp_path):
    base, out = tiny_world / "base", tmp_path / "model"
    for step in (2, 10):  # 10 is newer than 2, though not as text
        newest = make_checkpoint(tmp_path / "checkpoints", base, step, stage=stage, shift=step / 16)
    # one that was being written when the run was stopped: the tracker does not name it yet
    unfinished = tmp_path / "checkpoints" / "global_step_12"
    shutil.copytree(newest, unfinished / newest.relative_to(newest.parents[1 if stage == "grpo" else 0]))

    assert export(tmp_path / "checkpoints", out, str(base)) == newest
    assert_weights(out, base, 10 / 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "model"]


def test_processor_and_chat_template_come_from_the_base_model(tiny_world, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    base, out = tiny_world / "base", tmp_path / "model"
    folder = make_checkpoint(tmp_path / "checkpoints", base, 1)
    (folder / "tokenizer_config.json").write_text("{}")  # what training leaves behind is not used
    export(tmp_path / "checkpoints", out, str(base))

    other = {file.name for file in base.iterdir()} - {"model.safetensors", "config.json"}
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= other
    for name in other:
        assert (out / name).read_bytes() == (base / name).read_bytes(), name
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "how many"}]}]
    texts = {AutoProcessor.from_pretrained(path).apply_chat_template(talk, tokenize=False) for path in (base, out)}
    assert len(texts) == 1
    assert AutoModelForImageTextToText.from_pretrained(out).dtype == torch.float32


def test_a_base_of_links_gives_its_files_and_limits_but_not_its_weights(tiny_world, tmp_path):
    from avar_rl.base_model import make_base

    make_base(str(tiny_world / "base"), base := tmp_path / "base", most=25088)
    make_checkpoint(tmp_path / "checkpoints", base, 1, shift=0.5)
    export(tmp_path / "checkpoints", out := tmp_path / "model", str(base))
    assert_weights(out, base, 0.5)
    assert not [file.name for file in out.iterdir() if file.is_symlink()]
    assert json.loads((out / "processor_config.json").read_text())["image_processor"]["size"]["longest_edge"] == 25088


def test_the_dtype_is_the_base_models(tiny_world, tmp_path):
    base = shutil.copytree(tiny_world / "base", tmp_path / "base")
    make_checkpoint(tmp_path / "checkpoints", base, 1)
    config = json.loads((base / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "bfloat16"
    (base / "config.json").write_text(json.dumps(config))
    export(tmp_path / "checkpoints", tmp_path / "model", str(base))
    assert_weights(tmp_path / "model", base, 0.0, torch.bfloat16)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"


def test_weights_of_the_base_model_are_not_copied(tiny_world, tmp_path):
    base = shutil.copytree(tiny_world / "base", tmp_path / "base")
    for stray in ("pytorch_model.bin", "model.safetensors.index.json", "model-00001-of-00002.safetensors"):
        (base / stray).write_text("{}")
    make_checkpoint(tmp_path / "checkpoints", base, 1)
    export(tmp_path / "checkpoints", tmp_path / "out", str(base))
    weights = [file.name for file in (tmp_path / "out").iterdir() if "model" in file.name]
    assert weights == ["model.safetensors"]


def test_an_export_replaces_an_earlier_one_and_what_a_killed_one_left(tiny_world, tmp_path):
    base, out = tiny_world / "base", tmp_path / "model"
    killed = tmp_path / ".model.123.tmp"
    for leftover in (out, killed):
        leftover.mkdir()
        (leftover / "old.txt").write_text("old")
    make_checkpoint(tmp_path / "checkpoints", base, 1)
    export(tmp_path / "checkpoints", out, str(base))
    assert not (out / "old.txt").exists() and not killed.exists()


def refused(capsys, tmp_path: Path, base: Path) -> str:
    """The one sentence of an export that fails, and nothing written."""
    before = sorted(tmp_path.rglob("*"))
    assert main([str(tmp_path / "checkpoints"), str(tmp_path / "model"), "--base", str(base)]) == 2
    assert sorted(tmp_path.rglob("*")) == before
    return capsys.readouterr().err


def test_no_complete_checkpoint(tiny_world, tmp_path, capsys):
    make_checkpoint(tmp_path / "checkpoints", tiny_world / "base", 1)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").unlink()
    assert "holds no complete checkpoint" in refused(capsys, tmp_path, tiny_world / "base")


def save_shards(folder: Path, weights: dict, ranks: int) -> None:
    """The weights as plain whole tensors in each rank's file; real ones, cut, are made in test_checkpoint_safety.py."""
    for rank in range(ranks):
        torch.save(weights, folder / f"model_world_size_{ranks}_rank_{rank}.pt")


def test_weights_that_are_not_merged_yet_are_put_together_once(tiny_world, tmp_path):
    folder = make_checkpoint(tmp_path / "checkpoints", tiny_world / "base", 3, shift=0.5)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_shards(folder.parent, weights, ranks=2)
    assert export(tmp_path / "checkpoints", tmp_path / "model", str(tiny_world / "base")) == folder
    assert_weights(tmp_path / "model", tiny_world / "base", 0.5)
    merged = (folder / "model.safetensors").stat().st_mtime_ns
    export(tmp_path / "checkpoints", tmp_path / "model", str(tiny_world / "base"))
    assert (folder / "model.safetensors").stat().st_mtime_ns == merged


def test_a_checkpoint_without_weights_or_with_a_missing_part(tiny_world, tmp_path, capsys):
    folder = make_checkpoint(tmp_path / "checkpoints", tiny_world / "base", 3)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    assert "global_step_3 has no weights" in refused(capsys, tmp_path, tiny_world / "base")
    save_shards(folder.parent, weights, ranks=2)
    (folder.parent / "model_world_size_2_rank_1.pt").unlink()
    said = refused(capsys, tmp_path, tiny_world / "base")
    assert "global_step_3 lacks model_world_size_2_rank_1.pt: on several nodes, copy" in said
    assert not list(folder.glob("*.safetensors"))


@pytest.mark.parametrize("fault", ["missing_keys", "unexpected_keys"])
def test_weights_of_another_architecture(fault, tiny_world, tmp_path, capsys):
    folder = make_checkpoint(tmp_path / "checkpoints", tiny_world / "base", 3)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "q_proj.weight" in name)
    if fault == "missing_keys":
        del weights[name]
    else:
        weights[name.replace("q_proj", "r_proj")] = weights[name].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert f"does not match the architecture of {tiny_world / 'base'}: {{'{fault}'" in refused(
        capsys, tmp_path, tiny_world / "base"
    )


def test_weights_of_another_size_are_refused(tiny_world, tmp_path):
    folder = make_checkpoint(tmp_path / "checkpoints", tiny_world / "base", 3)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "q_proj.weight" in name)
    weights[name] = weights[name][:-1].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not match the architecture.*mismatched_keys"):
        export(tmp_path / "checkpoints", tmp_path / "model", str(tiny_world / "base"))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_latest_weights_prefers_the_actor(tiny_world, tmp_path):
    actor = make_checkpoint(tmp_path / "checkpoints", tiny_world / "base", 5, stage="grpo")
    assert latest_weights(tmp_path / "checkpoints") == actor
