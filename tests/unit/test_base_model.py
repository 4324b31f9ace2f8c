"""A model with limits of pixels: what is linked, what is written, what is refused, and what the processor then does."""

import json
import math
import os
import random
from pathlib import Path

import pytest
from PIL import Image

from avar_rl.base_model import main, make_base
from avar_rl.runtime.pixels import PixelLimits
from data_tools.miniature.model import TURNS_TEMPLATE

# Image processors as published with Qwen2.5-VL (its older names), an early Qwen2-VL (both) and Qwen3-VL, saved by
# transformers 5 (nested in one file): patch and merge sizes, and what sets the limits.
PUBLISHED = {
    "qwen2_5_vl": {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2},
    "qwen2_vl": {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "merge_size": 2,
        "size": {"min_pixels": 3136, "max_pixels": 12845056},
    },
    "qwen3_vl": {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16, "merge_size": 2},
}


def restyle(base: Path, to: Path, images: dict, *, nested: bool) -> Path:
    """A copy (by links) of the model `base` whose image processor's settings are `images`, nested or in an own file."""
    to.mkdir()
    for file in base.iterdir():
        if file.name != "processor_config.json":
            (to / file.name).symlink_to(file)
    settings = json.loads((base / "processor_config.json").read_text())
    images = {"image_processor_type": "Qwen2VLImageProcessor", "temporal_patch_size": 2} | images
    if nested:
        (to / "processor_config.json").write_text(json.dumps(settings | {"image_processor": images}))
    else:
        (to / "preprocessor_config.json").write_text(json.dumps(images | {"processor_class": "Qwen2_5_VLProcessor"}))
    return to


def image_tokens(model: Path, width: int, height: int) -> int:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(model)
    grid = processor(images=[Image.new("RGB", (width, height))], return_tensors="pt")["image_grid_thw"]
    return int(grid.prod()) // processor.merge_size**2


@pytest.mark.parametrize("nested", [False, True], ids=["preprocessor_config", "processor_config"])
@pytest.mark.parametrize("family", PUBLISHED)
def test_the_limits_are_set_in_every_style_of_every_family(family, nested, tiny_world, tmp_path):
    model = restyle(tiny_world / "base", tmp_path / "model", PUBLISHED[family], nested=nested)
    side = 32 if family == "qwen3_vl" else 28
    assert main([str(model), str(out := tmp_path / "base"), f"--min-pixels={4 * side**2}", "--max-pixels=50000"]) == 0
    # 1000 x 1000 under 50,000 pixels: side x floor(sqrt(50000) / side) = 7 x 28 = 196, or 6 x 32 = 192
    assert image_tokens(out, 1000, 1000) == (6 * 6 if side == 32 else 7 * 7)
    assert image_tokens(out, 5, 5) == 4
    assert image_tokens(model, 1000, 1000) == (31 * 31 if side == 32 else 36 * 36)  # round(1000 / side)


def test_out_is_the_model_by_links_with_a_processor_of_its_own(tiny_world, tmp_path, capsys):
    model, out = tiny_world / "base", tmp_path / "base"
    (hidden := tmp_path / "copy").mkdir()
    for file in model.iterdir():
        (hidden / file.name).symlink_to(file)
    (hidden / ".gitattributes").write_text("")
    (hidden / "notes").mkdir()
    assert main([str(hidden), str(out), "--max-pixels", "25088"]) == 0
    # 25,088 / 28^2 = 32; a strip of 1:200 may be 28 pixels high and sqrt(200 x 25088) = 2240 = 80 x 28 wide
    assert (
        capsys.readouterr().out
        == f"{out}: {hidden} with images of 3136 to 25088 pixels, at most 80 image tokens each\n"
    )
    own = {file.name for file in out.iterdir() if not file.is_symlink()}
    assert own == {"processor_config.json"}
    assert {file.name for file in out.iterdir()} == {file.name for file in model.iterdir()} | {"notes"}
    assert (out / "model.safetensors").resolve() == (model / "model.safetensors").resolve()
    assert Path(os.readlink(out / "config.json")).is_absolute()
    before, after = (json.loads((folder / "processor_config.json").read_text()) for folder in (model, out))
    assert after["image_processor"].pop("size") == {"shortest_edge": 3136, "longest_edge": 25088}
    before["image_processor"].pop("size")
    assert after == before  # the videos' limits too


def test_a_second_run_writes_the_same_and_new_limits_replace_old_ones(tiny_world, tmp_path):
    out = tmp_path / "base"
    texts = []
    for most in (25088, 25088, 50176):
        make_base(str(tiny_world / "base"), out, most=most)
        texts.append((out / "processor_config.json").read_bytes())
    assert texts[0] == texts[1] != texts[2]
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    # a base of a base: the inner one's limits count where none are given, and its weights are found through both
    assert make_base(str(out), tmp_path / "second", least=784) == PixelLimits(784, 50176, 28)
    assert (tmp_path / "second" / "model.safetensors").samefile(tiny_world / "base" / "model.safetensors")


def test_a_model_relative_to_here_is_linked_absolutely(tiny_world, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_world)
    assert main(["base", str(tmp_path / "out")]) == 0
    monkeypatch.chdir(tmp_path)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def refused(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("avar base: ")
    return captured.err


def test_limits_that_no_image_can_meet_are_refused(tiny_world, tmp_path, capsys):
    model, out = str(tiny_world / "base"), str(tmp_path / "out")
    assert "at least 60000 and at most 50000" in refused(capsys, model, out, "--min-pixels=60000", "--max-pixels=50000")
    assert "at least 3136 and at most 784" in refused(capsys, model, out, "--max-pixels=784")  # the model's own least
    assert "28 x 28 = 784 pixels; raise it" in refused(capsys, model, out, "--max-pixels=783", "--min-pixels=1")
    assert "--min-pixels 0 is no number of pixels" in refused(capsys, model, out, "--min-pixels=0")
    assert not Path(out).exists()
    assert main([model, out, "--min-pixels=784", "--max-pixels=784"]) == 0


def test_a_model_that_is_none_or_has_no_processor_is_refused(tiny_world, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert "neither a directory nor a model that the hub gives" in refused(capsys, "nobody/nothing", out)
    (bare := tmp_path / "bare").mkdir()
    assert "config.json is missing" in refused(capsys, str(bare), out)
    for file in (tiny_world / "base").iterdir():
        if file.name != "processor_config.json":
            (bare / file.name).symlink_to(file)
    assert "processor" in refused(capsys, str(bare), out)
    assert not Path(out).exists()


def test_a_processor_of_another_kind_is_refused():
    class Fixed:
        size = {"height": 224, "width": 224}  # noqa: RUF012

    with pytest.raises(ValueError, match="Fixed has no limits of pixels"):
        PixelLimits.of(Fixed())


def test_nothing_but_an_earlier_base_is_replaced(tiny_world, tmp_path, capsys):
    model = tiny_world / "base"
    assert "is the model itself" in refused(capsys, str(model), str(model))
    (link := tmp_path / "link").symlink_to(model)
    assert "is the model itself" in refused(capsys, str(model), str(link))
    assert "is inside the model's directory" in refused(capsys, str(model), str(model / "base"))
    (other := tmp_path / "other").mkdir()
    assert main([str(model), str(other)]) == 0  # an empty directory is nobody's
    (other / "results.json").write_text("{}")
    assert "was not written by this command" in refused(capsys, str(model), str(other))
    (file := tmp_path / "file").write_text("")
    assert "was not written by this command" in refused(capsys, str(model), str(file))
    exported = restyle(model, tmp_path / "exported", PUBLISHED["qwen2_5_vl"], nested=True)
    (exported / "config.json").unlink()
    (exported / "config.json").write_bytes((model / "config.json").read_bytes())
    assert "was not written by this command" in refused(capsys, str(model), str(exported))
    assert {"config.json", "model.safetensors"} <= {path.name for path in exported.iterdir()}


@pytest.mark.parametrize(
    ("least", "most", "tokens"),
    # a strip under 64 tokens: sqrt(200 x 64) = 113; one grown to 4 tokens: (sqrt(4 x 200) + 1) (sqrt(4 / 200) + 1) = 33
    [(4, 1280, 1280), (4, 64, 113), (4, 4, 33), (1, 1, 16), (256, 1280, 1280), (4, 199, 199)],
)
def test_no_image_gets_more_tokens_than_the_limits_say(least, most, tokens):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    draw, worst = random.Random(0), 0
    limits = PixelLimits(least * 28**2, most * 28**2, 28)
    for _ in range(20_000):
        height, ratio = math.exp(draw.uniform(0, 9)), draw.choice([1, 200, draw.uniform(1, 200)])
        size = int(height), int(int(height) * ratio)
        rows, columns = smart_resize(*size, 28, limits.least, limits.most)
        worst = max(worst, rows * columns // 28**2)
    assert limits.most_tokens == tokens
    assert 0.85 * tokens <= worst <= tokens


SAID = 'Look first.\nThen "answer" {{ briefly }}.'
ASKED = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]


def as_published(base: Path, to: Path, template: str, *, older: bool) -> Path:
    """A copy (by links) of the model `base` with another chat template, in a file of its own or in the older style."""
    to.mkdir()
    for file in base.iterdir():
        if file.name != "chat_template.jinja":
            (to / file.name).symlink_to(file)
    if not older:
        (to / "chat_template.jinja").write_text(template)
        return to
    (to / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    settings = json.loads((base / "tokenizer_config.json").read_text()) | {"chat_template": template}
    (to / "tokenizer_config.json").unlink()
    (to / "tokenizer_config.json").write_text(json.dumps(settings))
    return to


@pytest.mark.parametrize("older", [False, True], ids=["jinja", "json"])
def test_a_template_that_writes_no_system_turn_is_made_to_write_one(older, tiny_world, tmp_path, capsys):
    from transformers import AutoProcessor, AutoTokenizer

    model, out = as_published(tiny_world / "base", tmp_path / "model", TURNS_TEMPLATE, older=older), tmp_path / "base"
    assert "system" not in AutoProcessor.from_pretrained(model).apply_chat_template(ASKED, tokenize=False)
    for _ in range(2):  # a second run replaces the first
        assert main([str(model), str(out), "--system-prompt", SAID]) == 0
    assert f"its chat template says {SAID!r}" in capsys.readouterr().out
    for loaded in (AutoProcessor.from_pretrained(out), AutoTokenizer.from_pretrained(out)):
        told = f"<|im_start|>system\n{SAID}<|im_end|>\n<|im_start|>user\n?<|im_end|>\n"
        assert loaded.apply_chat_template(ASKED, tokenize=False) == told


def test_a_template_that_writes_a_system_turn_by_itself_stays(tiny_world, tmp_path, capsys):
    out = tmp_path / "base"
    assert main([str(tiny_world / "base"), str(out), "--system-prompt", SAID]) == 0
    assert "its chat template writes one by itself" in capsys.readouterr().out
    assert (out / "chat_template.jinja").is_symlink()


def test_an_empty_system_prompt_is_refused(tiny_world, tmp_path, capsys):
    assert main([str(tiny_world / "base"), str(tmp_path / "base"), "--system-prompt", " "]) == 2
    assert "--system-prompt is empty" in capsys.readouterr().err and not (tmp_path / "base").exists()
