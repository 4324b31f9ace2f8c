"""What a blind pass of the probe makes of response tokens: figures by hand, what does not exist, the command line."""

import json

import pytest
import torch
from PIL import Image

from avar_rl.blind import BlindSettings
from avar_rl.probe.__main__ import main
from avar_rl.probe.blind_pass import ResponseTokens
from avar_rl.probe.dependence import dependence_figures, dependence_json, print_dependence
from avar_rl.vas import HeadAttention


class Words:
    """A tokenizer whose tokens are letters."""

    def decode(self, ids):
        return "".join("abcdef"[number] for number in ids)


def tokens(clean, blind, masses, before=None) -> ResponseTokens:
    """Of a model of two layers; `masses` are those of the first, the second has 0.5 everywhere."""

    def layers(values):
        return torch.stack([torch.tensor(values).double(), torch.full((len(values),), 0.5).double()], dim=1)

    log_probs = torch.tensor(clean).double(), torch.tensor(blind).double()
    return ResponseTokens(torch.arange(len(clean)), *log_probs, layers(masses), layers(before or masses))


def attention(vas, measured) -> HeadAttention:
    vas_NLH = torch.tensor(vas).double()[:, None, None].expand(-1, 2, 1)
    names = ("vas", "vas_with_sink", "image_mass", "system_mass", "system_mass_with_sink")
    alive = torch.tensor(measured)
    return HeadAttention(**{f"{name}_NLH": vas_NLH for name in names}, seen_N=alive, measured_N=alive)


# Dependence: 1, 0, 0, 3 (mean 1) in the first sample, 2 in the second, not applicable in the third.
FIRST = tokens([-1.0, -1.0, -1.0, -1.0], [-2.0, -1.0, -1.0, -4.0], [0.2, 0.1, 0.1, 0.4], before=[0.1, 0.1, 0.4, 0.2])
SECOND = tokens([-1.0], [-3.0], [0.3])
RESPONSES = [FIRST, SECOND, None]
HEADS = attention([4.0, 6.0, 0.0], [True, True, False])


def test_figures_by_hand():
    found = dependence_figures(HEADS, RESPONSES)
    assert found.applicable_N.tolist() == [True, True, False]
    means = {name: figure.value for name, figure in found.means.items() if figure is not None}
    # Thirds of four tokens: two, one, one. The one token of the second sample is early.
    assert means == pytest.approx(
        {"dependence": 1.5, "early": 1.25, "middle": 0.0, "late": 3.0, "log_prob": -1.0, "blind_log_prob": -2.5}
    )
    assert found.means["dependence"].interval == (pytest.approx(1.0), pytest.approx(2.0))
    assert found.means["late"].n == 1 and found.means["late"].interval is None
    # Masses of the first layer are (dependence + 1) / 10, so they go with it in one line; the second has none to go.
    assert found.masses_L["image_mass"][0].pearson.value == pytest.approx(1.0)
    assert found.masses_L["image_mass"][0].spearman.value == pytest.approx(1.0)
    assert found.masses_L["image_mass"][1].pearson is None
    assert found.masses["image_mass"].pearson.value == pytest.approx(1.0)
    # The queries before: 0.1, 0.1, 0.4, 0.2, 0.3 with 1, 0, 0, 3, 2; deviations from 0.22 and 1.2 by hand.
    assert found.masses["image_mass_before"].pearson.value == pytest.approx(-0.02 / (0.068 * 6.8) ** 0.5)
    assert found.vas.pearson.value == pytest.approx(1.0) and found.vas.pearson.n == 2


def test_points_are_those_of_the_samples():
    points = dependence_figures(HEADS, RESPONSES).points
    assert points.sample_K.tolist() == [0, 0, 0, 0, 1] and points.dependence_K.tolist() == [1.0, 0.0, 0.0, 3.0, 2.0]
    assert (points.vas_N.tolist(), points.dependence_N.tolist()) == ([4.0, 6.0], [1.0, 2.0])


def test_without_a_system_turn_there_is_dependence_and_no_vas():
    found = dependence_figures(attention([0.0, 0.0], [False, False]), [FIRST, SECOND])
    assert found.vas is None and found.means["dependence"].value == 1.5


def test_one_sample_has_figures_without_intervals():
    found = dependence_figures(attention([4.0], [True]), [FIRST])
    assert found.means["dependence"].interval is None and found.masses["image_mass"].pearson.interval is None
    assert found.vas.pearson is None  # one point goes with nothing


def test_json_has_null_where_nothing_exists():
    found = dependence_figures(HEADS, RESPONSES)
    written = dependence_json(found, RESPONSES, ["x", "y", "z"], BlindSettings(share=0.5), Words())
    text = json.dumps(written, allow_nan=False)
    assert json.loads(text)["settings"] == {"mask": "patches", "share": 0.5, "value": "black", "seed": 0}
    assert (written["samples"], written["not_applicable"], written["tokens"]) == (2, 1, 5)
    assert written["per_sample"][2] == {"id": "z", "dependence": None}
    first = written["per_sample"][0]
    assert first["tokens"] == ["a", "b", "c", "d"] and first["token_dependence"] == [1.0, 0.0, 0.0, 3.0]
    assert first["token_image_mass"] == pytest.approx([0.35, 0.3, 0.3, 0.45])  # mean over layers
    assert written["correlations"]["image_mass"]["per_layer"][1] == {"pearson": None, "spearman": None}


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    print_dependence(dependence_figures(HEADS, RESPONSES), [3, 17])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    for shown in ("1.5", "1 .. 2", "1.000 (1.000 .. 1.000)", "17", "5 tokens; without image or response: 1 samples"):
        assert shown in printed


def test_nothing_applicable_is_said():
    with pytest.raises(ValueError, match="none of 2 samples has an image and a response"):
        dependence_figures(attention([0.0, 0.0], [False, False]), [None, None])


def test_command_line(tiny_world, tmp_path, capfd, monkeypatch):
    for name in ("OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING", "TORCHDYNAMO_DISABLE"):
        monkeypatch.setenv(name, "1")  # main() sets what is not set; monkeypatch puts it back
    model, data = str(tiny_world / "base"), str(tiny_world / "data" / "sft_val.parquet")
    files = ["--json", str(tmp_path / "blind.json"), "--plot", str(tmp_path / "blind.png")]
    assert main([model, data, "--limit", "6", "--layers", "1,3", "--blind", "--blind-share", "1", *files]) == 0
    assert "dependence: log p(clean) - log p(blind)" in capfd.readouterr().out
    found = json.loads((tmp_path / "blind.json").read_text())
    assert found["queries"] == "response" and found["blind"]["settings"]["share"] == 1.0
    assert len(found["blind"]["correlations"]["image_mass"]["per_layer"]) == 2
    by_hand = [one["dependence"] for one in found["blind"]["per_sample"] if one["dependence"] is not None]
    assert found["blind"]["means"]["dependence"]["value"] == pytest.approx(sum(by_hand) / len(by_hand))
    assert all(abs(value) > 1e-6 for value in by_hand)
    with Image.open(tmp_path / "blind.dependence.png") as picture:
        assert picture.format == "PNG" and len(picture.convert("RGB").getcolors(1 << 20)) > 50  # not blank


def test_options_that_do_not_fit(tiny_world, capfd, monkeypatch):
    for name in ("OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING", "TORCHDYNAMO_DISABLE"):
        monkeypatch.setenv(name, "1")
    model, data = str(tiny_world / "base"), str(tiny_world / "data" / "sft_val.parquet")
    asked = str(tiny_world / "data" / "test.parquet")
    refusals = {
        "--blind-share: Input should be less than or equal to 1, not '2'": [data, "--blind", "--blind-share", "2"],
        "--blind-share: Input should be greater than 0, not '0'": [data, "--blind", "--blind-share", "0"],
        "--blind-seed: Input should be a valid integer": [data, "--blind", "--blind-seed", "x"],
        "--blind-mask does nothing without --blind": [data, "--blind-mask", "tokens"],
        "leave out --queries user": [data, "--blind", "--queries", "user"],
        "holds no responses: only chat rows": [asked, "--blind"],
    }
    for message, arguments in refusals.items():
        assert main([model, *arguments]) == 2
        assert message in capfd.readouterr().err
