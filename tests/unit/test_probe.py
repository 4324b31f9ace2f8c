"""The VAS probe: figures by hand, documented outcomes for odd samples, and the measurement against eager maps."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from avar_rl.attention.roles import Markup, Role, token_roles
from avar_rl.probe.__main__ import main
from avar_rl.probe.measure import fitting_batch_size, image_attention, load_network, measure
from avar_rl.probe.report import band, figures, print_tables, to_json
from avar_rl.probe.samples import Conversation, load_samples
from avar_rl.vas import HeadAttention
from data_tools.validate import load_processor


def png(size: int = 84) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), (200, 30, 30)).save(out, "PNG")
    return out.getvalue()


def user(content: str, *before: dict) -> tuple[dict, ...]:
    return (*before, {"role": "user", "content": content})


PLAIN = Conversation("plain", user("<image>How many red shapes?"), (png(),))
TEXT_FIRST = Conversation("text first", user("How many red shapes?<image>"), (png(),))
TEXT_ONLY = Conversation("text only", user("How many red shapes?"), ())


@pytest.fixture(scope="module")
def base(tiny_world):
    return load_network(str(tiny_world / "base"), "cpu"), load_processor(tiny_world / "base")


def test_bands():
    assert [band(vas) for vas in (0.0, 9.99, 10.0, 15.0, 15.01)] == ["narrow", "narrow", "wide", "wide", "panoramic"]


def hand_made() -> HeadAttention:
    """Three samples, one layer, two heads: measured, without system turn, without image."""
    table = {
        "vas": [[4.0, 2.0], [0, 0], [0, 0]],
        "vas_with_sink": [[2.0, 1.0], [0, 0], [0, 0]],
        "image_mass": [[0.4, 0.2], [0.6, 0.6], [0, 0]],
        "system_mass": [[0.1, 0.1], [0, 0], [0, 0]],
        "system_mass_with_sink": [[0.2, 0.2], [0, 0], [0, 0]],
    }
    arrays = {f"{name}_NLH": torch.tensor(rows).double()[:, None] for name, rows in table.items()}
    return HeadAttention(
        **arrays, seen_N=torch.tensor([True, True, False]), measured_N=torch.tensor([True, False, False])
    )


def test_figures_by_hand():
    found = figures(hand_made())
    assert found["vas"].mean == 3.0 and found["vas"].n == 1 and found["vas"].interval is None
    assert found["image_mass"].n == 2  # needs no system turn
    assert found["image_mass"].mean == pytest.approx((0.3 + 0.6) / 2)
    assert found["image_mass"].mean_LH.tolist() == [[pytest.approx(0.5), pytest.approx(0.4)]]
    assert found["image_mass"].interval == (pytest.approx(0.3), pytest.approx(0.6))  # of two samples: their range
    assert found["ratio_of_means"].mean == pytest.approx(0.3 / 0.1)
    assert found["ratio_of_means"].mean_LH.tolist() == [[pytest.approx(4.0), pytest.approx(2.0)]]
    assert found["ratio_of_means_with_sink"].mean == pytest.approx(1.5)


def test_json_has_null_where_nothing_was_measured():
    heads = hand_made()
    found = to_json(heads, figures(heads), [0], ["a", "b", "c"])
    assert found["samples"] == {"samples": 3, "measured": 1, "without_image_or_queries": 1, "without_system_turn": 1}
    assert found["band"] == "narrow"
    assert found["per_sample"][1]["vas"] is None and found["per_sample"][1]["image_mass"] == pytest.approx(0.6)
    assert found["per_sample"][2]["image_mass"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("width", [80, 120])
def test_tables_keep_every_number(width, monkeypatch, capsys):
    """Layer by layer, with numbers as long as they get, in one table where it fits and in one per measure elsewhere."""
    monkeypatch.setenv("COLUMNS", str(width))
    values_NLH = 1234567.0 * torch.tensor([1.0, 1.1]).double()[:, None, None].expand(2, 12, 3)
    names = ("vas", "vas_with_sink", "image_mass", "system_mass", "system_mass_with_sink")
    alive = torch.ones(2, dtype=torch.bool)
    heads = HeadAttention(**{f"{name}_NLH": values_NLH for name in names}, seen_N=alive, measured_N=alive)
    print_tables(heads, figures(heads), range(12))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert sum("1.296e+06 1.235e+06 .. 1.358e+06" in line for line in lines) == (36 if width == 80 else 12)


def test_a_truncated_image_is_named(base):
    cut = Conversation("cut", user("<image>What?"), (png()[:-40],))
    with pytest.raises(ValueError, match="sample cut: an image cannot be read .OSError"):
        cut.pictures()
    with pytest.raises(ValueError, match="sample none: an image cannot be read"):
        measure(*base[:1], [Conversation("none", user("<image>What?"), (b"no image",))], base[1])


@torch.no_grad()
def test_equals_eager_maps(base, tiny_world):
    """VAS as the paper writes it, from whole maps, one sample at a time."""
    network, processor = base
    samples = [PLAIN, TEXT_FIRST, *load_samples(tiny_world / "data" / "test.parquet", "user", 3)]
    found = measure(network, samples, processor, batch_size=3)
    eager = load_network(str(tiny_world / "base"), "cpu")
    eager.set_attn_implementation("eager")
    for place, sample in enumerate(samples):
        inputs = processor(text=[sample.text(processor)], images=sample.pictures(), return_tensors="pt")
        roles = token_roles(inputs["input_ids"], Markup.from_tokenizer(processor.tokenizer))[0]
        maps_LHQT = torch.stack(eager(**inputs, output_attentions=True).attentions)[:, 0][:, :, roles == Role.USER]
        image, system = (maps_LHQT[..., roles == role].sum(-1) for role in (Role.IMAGE, Role.SYSTEM))
        torch.testing.assert_close(found.vas_NLH[place], (image / system).mean(-1).double(), rtol=1e-4, atol=1e-6)
        with_sink = image / (system + maps_LHQT[..., 0])
        torch.testing.assert_close(found.vas_with_sink_NLH[place], with_sink.mean(-1).double(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.image_mass_NLH[place], image.mean(-1).double(), rtol=1e-4, atol=1e-6)


def test_layers_are_a_part_of_all(base):
    network, processor = base
    whole, part = measure(network, [PLAIN], processor), measure(network, [PLAIN], processor, layers=[1, 3])
    torch.testing.assert_close(part.vas_NLH, whole.vas_NLH[:, [1, 3]])
    with pytest.raises(ValueError, match=r"layers \[9\]"):
        measure(network, [PLAIN], processor, layers=[9])
    with pytest.raises(ValueError, match="no samples"):
        measure(network, [], processor)


def test_odd_samples_have_the_documented_outcome(base):
    network, processor = base
    heads = measure(network, [TEXT_ONLY, PLAIN, TEXT_FIRST], processor)
    assert heads.seen_N.tolist() == [False, True, True]  # in the order given, though batches are sorted
    assert heads.image_mass_NLH[1].min() > 0
    assert heads.vas_NLH[2].abs().max() == 0 and heads.measured_N[2]  # text before the image sees none of it
    assert all(part.isfinite().all() for part in (heads.vas_NLH, heads.system_mass_NLH))
    nothing = measure(network, [TEXT_ONLY], processor)
    assert figures(nothing) == dict.fromkeys(figures(heads))


def test_without_a_system_turn_image_mass_remains(base):
    network, processor = base
    template = processor.chat_template
    processor.chat_template = (  # writes the turns and adds none
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
        "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}"
        "{% endfor %}<|im_end|>\n{% endfor %}"
    )
    try:
        found = figures(measure(network, [PLAIN, PLAIN], processor))
    finally:
        processor.chat_template = template
    assert found["vas"] is None and found["system_mass"] is None and found["ratio_of_means"] is None
    assert 0 < found["image_mass"].mean < 1


def test_attention_over_the_image_sums_to_its_mass(base):
    network, processor = base
    attention_hw = image_attention(network, PLAIN, processor)
    assert attention_hw.shape == (3, 3)  # 84 pixels, 28 to a token
    assert attention_hw.sum().item() == pytest.approx(measure(network, [PLAIN], processor).image_mass_NLH.mean().item())
    with pytest.raises(ValueError, match="text only has no image"):
        image_attention(network, TEXT_ONLY, processor)


def test_batches_shrink_with_length(base):
    sizes = [fitting_batch_size(base[0], length) for length in (64, 4096, 32768, 1 << 22)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 32 and sizes[-1] == 1


def test_samples_of_our_own_rows(tiny_world):
    asked = load_samples(tiny_world / "data" / "test.parquet", "user", 2)
    assert len(asked) == 2 and asked[0].asks and asked[0].images
    chat = tiny_world / "data" / "sft_val.parquet"
    assert [turn["role"] for turn in load_samples(chat, "user", 1)[0].turns] == ["user"]
    answered = load_samples(chat, "response", 1)[0]
    assert [turn["role"] for turn in answered.turns] == ["user", "assistant"] and not answered.asks
    with pytest.raises(ValueError, match="holds no responses"):
        load_samples(tiny_world / "data" / "test.parquet", "response")
    with pytest.raises(ValueError, match="limit is 0"):
        load_samples(chat, "user", 0)


def test_samples_of_any_parquet_with_images(tmp_path):
    (tmp_path / "one.png").write_bytes(png())
    rows = [{"question": "What?", "image": {"bytes": png(), "path": None}}, {"question": "Where?", "image": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    first, second = load_samples(tmp_path / "a.parquet", "user")
    assert first.turns[0]["content"] == "<image>What?" and len(first.images) == 1 and second.images == ()
    rows = [{"problem": "See <image>: what?", "images": ["one.png"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    assert load_samples(tmp_path / "b.parquet", "user")[0].turns[0]["content"] == "See <image>: what?"
    faulty = {"no text": {"label": "x"}, "1 `<image>` marks for 0": {"text": "<image>"}}
    faulty["no such image file"] = {"text": "x", "images": ["absent.png"]}
    for message, row in faulty.items():
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "c.parquet")
        with pytest.raises(ValueError, match=message):
            load_samples(tmp_path / "c.parquet", "user")


def test_command_line(tiny_world, tmp_path, capfd, monkeypatch):
    for name in ("OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING", "TORCHDYNAMO_DISABLE"):
        monkeypatch.setenv(name, "1")  # main() sets what is not set; monkeypatch puts it back
    model, data = str(tiny_world / "base"), str(tiny_world / "data" / "sft_val.parquet")
    files = ["--json", str(tmp_path / "vas.json"), "--plot", str(tmp_path / "new" / "vas.png")]
    assert main([model, data, "--limit", "4", "--queries", "response", "--layers", "0-1", *files]) == 0
    printed = capfd.readouterr().out
    assert "ratio of means with sink" in printed and "narrow < 10" in printed
    found = json.loads((tmp_path / "vas.json").read_text())
    assert found["layers"] == [0, 1] and found["samples"]["measured"] >= 1
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["vas.png", "vas.sample.png"]
    with Image.open(tmp_path / "new" / "vas.png") as picture:
        assert picture.format == "PNG" and len(picture.convert("RGB").getcolors(1 << 20)) > 50  # not blank
    assert main([model, data, "--layers", "9"]) == 2
    assert "probe: cannot record layers [9]" in capfd.readouterr().err
    assert main([model, str(tmp_path / "none.parquet")]) == 2
    assert main([str(tmp_path), data]) == 2
    assert main([model, data, "--layers", "0-x"]) == 2
    assert "probe: --layers '0-x': '0-x' is not a layer or FIRST-LAST" in capfd.readouterr().err
    assert main([model, data, "--limit", "1", "--json", f"{data}/x.json"]) == 2  # a file is no folder
