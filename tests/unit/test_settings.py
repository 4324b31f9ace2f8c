"""The `avar:` block of a recipe: parsed once, mistakes named with their place."""

import pytest
from omegaconf import OmegaConf

from avar_rl.verl_plugin.settings import GRPOSettings, SFTSettings, parse


def grpo(**avar) -> GRPOSettings:
    return parse(GRPOSettings, OmegaConf.create({"avar": avar}))


def sft(**avar) -> SFTSettings:
    return parse(SFTSettings, OmegaConf.create({"avar": avar}))


def test_an_empty_block_is_the_defaults():
    assert sft() == SFTSettings() and grpo() == GRPOSettings()


def test_values_arrive_at_every_level():
    settings = grpo(
        profile="cpu", reward={"visual": 0.5}, visual={"mode": "share", "clip": 3}, guard={"total_minutes": 5}
    )
    assert (settings.profile, settings.reward.visual, settings.reward.accuracy) == ("cpu", 0.5, 1.0)
    assert (settings.visual.mode, settings.visual.clip, settings.guard.total_minutes) == ("share", 3, 5.0)
    assert sft(guidance={"alpha": 0, "beta": 0}).guidance.enabled is False


def test_interpolations_are_resolved():
    config = OmegaConf.create({"weight": 0.25, "avar": {"reward": {"visual": "${weight}"}}})
    assert parse(GRPOSettings, config).reward.visual == 0.25


def test_without_a_block_the_recipe_to_start_from_is_named():
    with pytest.raises(ValueError, match="no `avar:` block; start from recipes/config"):
        parse(SFTSettings, OmegaConf.create({"trainer": {}}))


@pytest.mark.parametrize(
    ("parser", "avar", "expected"),
    [
        (sft, {"gudiance": {}}, "unknown configuration key avar.gudiance; known: guidance, profile"),
        (sft, {"reward": {}}, "unknown configuration key avar.reward"),  # a key of the other stage
        (sft, {"guidance": {"gamma": 1}}, "unknown configuration key avar.guidance.gamma; known: alpha, beta, eps"),
        (grpo, {"reward": {"acuracy": 1}}, "unknown configuration key avar.reward.acuracy"),
        (grpo, {"visual": {"lambda": 1}}, "unknown configuration key avar.visual.lambda"),
        (grpo, {"guard": {"minutes": 1}}, "unknown configuration key avar.guard.minutes"),
    ],
)
def test_unknown_keys_are_named_with_their_place(parser, avar, expected):
    with pytest.raises(ValueError) as error:
        parser(**avar)
    assert expected in str(error.value)


def test_numbers_written_as_text():
    # YAML 1.1 reads 1e-6, without a dot, as text
    assert sft(guidance={"eps": "1e-6"}).guidance.eps == 1e-6
    assert grpo(visual={"eps": "2e-4", "clip": "1e1"}).visual.eps == 2e-4
    assert grpo(visual={"clip": "1e1"}).visual.clip == 10.0
    assert grpo(reward={"visual": "3e-1"}).reward.visual == 0.3


def test_lists_become_tuples():
    assert sft(guidance={"layers": [0, 2]}).guidance.layers == (0, 2)
    assert grpo(visual={"layers": [1]}).visual.layers == (1,)
    assert hash(grpo(visual={"layers": [1]}))  # frozen bundles all the way down


@pytest.mark.parametrize(
    ("parser", "avar", "expected"),
    [
        (sft, {"guidance": {"alpha": "much"}}, "avar.guidance.alpha must be a number, not 'much'"),
        (sft, {"guidance": {"alpha": True}}, "avar.guidance.alpha must be a number, not True"),
        (sft, {"guidance": {"alpha": None}}, "avar.guidance.alpha must be a number, not None"),
        (sft, {"guidance": {"alpha": [0.1]}}, "avar.guidance.alpha must be a number, not [0.1]"),
        (sft, {"guidance": {"alpha": -0.1}}, "alpha=-0.1"),
        (sft, {"guidance": {"alpha": float("nan")}}, "alpha=nan"),
        (sft, {"guidance": {"eps": 0}}, "eps=0"),
        (sft, {"guidance": {"rows": "system"}}, "rows='system'"),
        (sft, {"guidance": {"layers": 3}}, "avar.guidance.layers must be a list of layer indices or null, not 3"),
        (sft, {"guidance": {"layers": ["first"]}}, "avar.guidance.layers must be a list of layer indices or null"),
        (sft, {"guidance": 0.15}, "avar.guidance must be a mapping, not 0.15"),
        (grpo, {"reward": None}, "avar.reward must be a mapping, not None"),
        (grpo, {"reward": {"format": -1}}, "format is -1"),
        (grpo, {"reward": {"accuracy": 0}}, "gated by correctness, but avar.reward.accuracy is 0"),
        (grpo, {"visual": {"mode": "loud"}}, "avar.visual.mode must be 'ratio' or 'share', not 'loud'"),
        (grpo, {"visual": {"eps": 0}}, "avar.visual.eps must be positive, not 0"),
        (grpo, {"visual": {"clip": -1}}, "avar.visual.clip must be positive or null, not -1"),
        (grpo, {"visual": {"clip": "high"}}, "avar.visual.clip must be a number, not 'high'"),
        (grpo, {"guard": {"step_minutes": "soon"}}, "avar.guard.step_minutes must be a number, not 'soon'"),
    ],
)
def test_bad_values_are_named(parser, avar, expected):
    with pytest.raises(ValueError) as error:
        parser(**avar)
    assert expected in str(error.value)


def test_without_a_visual_weight_accuracy_may_be_off():
    assert grpo(reward={"accuracy": 0, "visual": 0}).reward.format == 0.1
