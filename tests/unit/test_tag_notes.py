"""What the preflight says of think and answer tags: special or untrained tokens, a template that opens the thought."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AddedToken, AutoTokenizer

from avar_rl.verl_plugin.config.tags import TAGS, tag_notes

NAME = "model.embed_tokens.weight"


@pytest.fixture
def model(tiny_world, tmp_path):
    """A copy of the miniature's directory, free to be changed."""
    return shutil.copytree(tiny_world / "base", tmp_path / "model")


def add(model, tags, special: bool = False) -> int:
    """Adds tokens to the tokenizer; the number of tokens before."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    before = len(tokenizer)
    tokenizer.add_tokens([AddedToken(tag, special=special, normalized=False) for tag in tags], special_tokens=special)
    tokenizer.save_pretrained(model)
    return before


def grow(model, rows: torch.Tensor, before: int) -> None:
    """Puts `rows` behind the first `before` rows of the input embedding."""
    weights = load_file(model / "model.safetensors")
    weights[NAME] = torch.cat([weights[NAME][:before], rows])
    save_file(weights, model / "model.safetensors")


def test_ordinary_text_a_hub_name_and_trained_tokens_need_no_note(tiny_world, model):
    assert tag_notes(str(tiny_world / "base")) == []
    assert tag_notes("Qwen/Qwen2.5-VL-7B-Instruct") == []
    before = add(model, TAGS)
    grow(model, load_file(model / "model.safetensors")[NAME][20:24], before)  # as ordinary rows are
    assert tag_notes(str(model)) == []


def test_special_tokens_leave_the_text(model):
    add(model, ["<think>", "</think>"], special=True)
    (note,) = tag_notes(str(model))
    assert note.startswith("<think>, </think>: special tokens of") and "special=False" in note


@pytest.mark.parametrize("how", ["mean", "zero", "equal", "absent"])
def test_untrained_rows(how, model):
    before = add(model, ["<think>", "</think>"])
    embedding = load_file(model / "model.safetensors")[NAME][:before].float()
    mean, small = embedding.mean(0), 1e-4 * torch.randn(2, embedding.shape[1])
    rows = {"mean": mean + small, "zero": 0 * small, "equal": embedding[20] + small, "absent": small[:0]}[how]
    grow(model, rows, before)
    (note,) = tag_notes(str(model))
    assert note.startswith("<think>, </think>: added tokens of") and "look untrained" in note


def test_weights_in_several_files(model):
    before = add(model, ["<think>"])
    grow(model, torch.zeros(1, 128), before)
    (model / "model.safetensors").rename(model / "model-00001.safetensors")
    places = {"weight_map": {NAME: "model-00001.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(places))
    assert len(tag_notes(str(model))) == 1
    (model / "model-00001.safetensors").unlink()  # no safetensors: nothing can be said
    assert tag_notes(str(model)) == []


def test_a_template_that_opens_the_thought(model):
    path = model / "chat_template.jinja"
    opens = "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"
    path.write_text(path.read_text().rstrip() + "{% if add_generation_prompt %}" + opens + "{% endif %}")
    (note,) = tag_notes(str(model))
    assert note.endswith("opens each thought: its <think> counts as the response's")
    assert tag_notes(str(model), {"enable_thinking": False}) == []
