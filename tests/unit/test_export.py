"""Checkpoint -> Hugging Face directory, from checkpoints laid out as verl's trainers lay them out."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avar_rl.adapters import fingerprint, write_adapter
from avar_rl.export import export, latest_checkpoint, main


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


def refused(capsys, tmp_path: Path, base: Path, *options: str) -> str:
    """The one sentence of an export that fails, and nothing written."""
    before = sorted(tmp_path.rglob("*"))
    assert main([str(tmp_path / "checkpoints"), str(tmp_path / "model"), "--base", str(base), *options]) == 2
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


def test_the_actor_is_what_is_exported_of_a_grpo_checkpoint(tiny_world, tmp_path):
    actor = make_checkpoint(tmp_path / "checkpoints", tiny_world / "base", 5, stage="grpo")
    assert latest_checkpoint(tmp_path / "checkpoints") == actor.parent


def make_adapter_checkpoint(checkpoints: Path, base: Path, *, stage: str = "sft", exclude: str | None = ".*visual.*"):
    """A finished checkpoint of a LoRA stage over `base`, with adapters that change the model a lot: PEFT's model."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForImageTextToText

    network = get_peft_model(
        AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", exclude_modules=exclude),
    )
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    folder = checkpoints / "global_step_3" / ("actor" if stage == "grpo" else "")
    weights, config = get_peft_model_state_dict(network), network.peft_config["default"]
    write_adapter(folder / "lora_adapter", weights, config, base="elsewhere/base", base_fingerprint=fingerprint(base))
    (folder / "huggingface").mkdir()
    (folder / "huggingface" / "config.json").write_text("{}")
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("3")
    return network.eval()


def logits(network, base: Path, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    from PIL import Image
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(base)
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "how many red shapes ?"}]}]
    text = processor.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[Image.new("RGB", (84, 84), "red")], return_tensors="pt")
    with torch.no_grad():
        return network(**inputs.to(dtype)).logits.float()


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_adapters_are_merged_into_the_model_that_they_were_trained_on(stage, tiny_world, tmp_path):
    from transformers import AutoModelForImageTextToText

    base, out = tiny_world / "base", tmp_path / "model"
    network = make_adapter_checkpoint(tmp_path / "checkpoints", base, stage=stage)
    source = export(tmp_path / "checkpoints", out, str(base))
    assert source.name == "lora_adapter"
    written, before = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    assert written.keys() == before.keys()
    changed = {name for name in before if not torch.equal(written[name], before[name])}
    layers = {name for name in before if name.startswith("model.layers.") and name.endswith("_proj.weight")}
    assert changed == layers and len(layers) == 4 * 7
    assert {file.name for file in out.iterdir()} == {file.name for file in base.iterdir()}
    merged = AutoModelForImageTextToText.from_pretrained(out).eval()
    expected = logits(network, base)
    with network.disable_adapter():
        assert float((logits(network, base) - expected).abs().max()) > 0.5
    # measured: 1.9e-6 where logits reach 2.4
    torch.testing.assert_close(logits(merged, out), expected, rtol=0, atol=1e-4)


def test_merged_weights_are_rounded_once_to_the_base_models_dtype(tiny_world, tmp_path):
    from transformers import AutoModelForImageTextToText

    base = in_bfloat16(tiny_world / "base", tmp_path / "base")
    network = make_adapter_checkpoint(tmp_path / "checkpoints", base)
    export(tmp_path / "checkpoints", tmp_path / "model", str(base))
    assert {tensor.dtype for tensor in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.bfloat16}
    written = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").state_dict()
    exact = network.merge_and_unload().state_dict()  # in float32
    for name, tensor in written.items():
        assert torch.equal(tensor, exact[name].to(torch.bfloat16)), name


def in_bfloat16(base: Path, out: Path) -> Path:
    shutil.copytree(base, out)
    weights = {name: tensor.bfloat16() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "bfloat16"
    (out / "config.json").write_text(json.dumps(config))
    return out


def test_the_adapter_alone_is_what_peft_loads(tiny_world, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    base, out = tiny_world / "base", tmp_path / "adapter"
    network = make_adapter_checkpoint(tmp_path / "checkpoints", base)
    assert main([str(tmp_path / "checkpoints"), str(out), "--base", str(base), "--adapter-only"]) == 0
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors", "trained_over.json"]
    assert [name for name in sorted(file.name for file in out.iterdir()) if name != "README.md"] == files[1:]
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base.resolve())
    loaded = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), str(out)).eval()
    assert torch.equal(logits(loaded, base), logits(network, base))


def test_adapters_in_the_vision_tower_are_merged_too(tiny_world, tmp_path):
    from transformers import AutoModelForImageTextToText

    base = tiny_world / "base"
    network = make_adapter_checkpoint(tmp_path / "checkpoints", base, exclude=None)
    export(tmp_path / "checkpoints", tmp_path / "model", str(base))
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(logits(merged, base), logits(network, base), rtol=0, atol=1e-4)


def another_model(base: Path, out: Path) -> Path:
    """`base` with one weight of one layer moved a little."""
    shutil.copytree(base, out)
    weights = load_file(out / "model.safetensors")
    name = next(name for name in weights if name.endswith("3.mlp.up_proj.weight"))
    weights[name] = weights[name] + 1e-3
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


@pytest.mark.parametrize("option", [[], ["--adapter-only"]])
def test_an_adapter_is_not_merged_into_another_model(option, tiny_world, tmp_path, capsys):
    other = another_model(tiny_world / "base", tmp_path / "other")
    make_adapter_checkpoint(tmp_path / "checkpoints", tiny_world / "base")
    message = refused(capsys, tmp_path, other, *option)
    assert f"was trained on other weights than those of {other} and elsewhere/base: give the model" in message


def test_where_the_base_is_an_earlier_model_the_checkpoint_tells_which_one_the_stage_started_from(tiny_world, tmp_path):
    """As in a recipe: GRPO starts from the merged model of the cold start, and every export names the first model."""
    from transformers import AutoModelForImageTextToText

    first, started_from = another_model(tiny_world / "base", tmp_path / "first"), tiny_world / "base"
    network = make_adapter_checkpoint(tmp_path / "checkpoints", started_from)
    told = tmp_path / "checkpoints" / "global_step_3" / "lora_adapter" / "trained_over.json"
    told.write_text(told.read_text().replace("elsewhere/base", str(started_from)))
    export(tmp_path / "checkpoints", tmp_path / "model", str(first))
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(logits(merged, first), logits(network, first), rtol=0, atol=1e-4)
    export(tmp_path / "checkpoints", tmp_path / "adapter", str(first), adapter_only=True)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(started_from.resolve())


@pytest.mark.parametrize("fault", ["missing", "unexpected", "of another size"])
def test_an_adapter_that_does_not_fit_is_refused(fault, tiny_world, tmp_path, capsys):
    make_adapter_checkpoint(tmp_path / "checkpoints", tiny_world / "base")
    file = tmp_path / "checkpoints" / "global_step_3" / "lora_adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "q_proj.lora_A" in name)
    tensor = weights.pop(name)
    if fault != "missing":
        other = name.replace("q_proj", "r_proj") if fault == "unexpected" else name
        weights |= {other: tensor[:2].clone() if fault == "of another size" else tensor}
    save_file(weights, file, metadata={"format": "pt"})
    assert "does not match the architecture of the model" in refused(capsys, tmp_path, tiny_world / "base")


def test_an_adapter_with_a_weight_that_is_not_a_number_is_refused(tiny_world, tmp_path, capsys):
    make_adapter_checkpoint(tmp_path / "checkpoints", tiny_world / "base")
    file = tmp_path / "checkpoints" / "global_step_3" / "lora_adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    assert "NaN" in refused(capsys, tmp_path, tiny_world / "base")


def test_whole_weights_have_no_adapter_to_write(tiny_world, tmp_path, capsys):
    make_checkpoint(tmp_path / "checkpoints", tiny_world / "base", 1)
    assert "has no adapter: the stage trained whole weights; leave --adapter-only out" in refused(
        capsys, tmp_path, tiny_world / "base", "--adapter-only"
    )


def test_a_fingerprint_is_of_the_weights_whatever_files_they_are_in(tiny_world, tmp_path):
    whole, first, second = tiny_world / "base", tmp_path / "first", tmp_path / "second"
    weights = sorted(load_file(whole / "model.safetensors").items())
    for folder, cut in ((first, 10), (second, 30)):
        folder.mkdir()
        save_file(dict(weights[:cut]), folder / "model-1.safetensors")
        save_file(dict(weights[cut:]), folder / "model-2.safetensors")
    assert fingerprint(first) == fingerprint(second) == fingerprint(whole)
    assert fingerprint(in_bfloat16(whole, tmp_path / "other")) != fingerprint(whole)
    with pytest.raises(ValueError, match="has no weights as"):
        fingerprint(tmp_path)
