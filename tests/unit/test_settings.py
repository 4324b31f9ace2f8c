"""The `avar:` block of a recipe: parsed once, mistakes named with their place."""

import pytest
from omegaconf import OmegaConf

from avar_rl.verl_plugin.config.settings import GRPOSettings, SFTSettings, absolute_paths, parse
from rewards.combine import Term


def grpo(**avar) -> GRPOSettings:
    return parse(GRPOSettings, OmegaConf.create({"avar": avar}))


def sft(**avar) -> SFTSettings:
    return parse(SFTSettings, OmegaConf.create({"avar": avar}))


def test_an_empty_block_is_the_defaults():
    assert sft() == SFTSettings() and grpo() == GRPOSettings()


def test_values_arrive_at_every_level():
    settings = grpo(
        profile="cpu", rewards={"visual": {"weight": 0.5, "mode": "share"}}, attention={"measure": True},
        groups={"normalise": "parts"}, guard={"total_minutes": 5},
    )  # fmt: skip
    assert settings.rewards == (Term("visual", 0.5, options=(("mode", "share"),)),)
    assert (settings.profile, settings.attention.measure, settings.groups.normalise) == ("cpu", True, "parts")
    assert settings.guard.total_minutes == 5.0
    assert sft(guidance={"alpha": 0, "beta": 0}).guidance.enabled is False


def test_interpolations_are_resolved():
    config = OmegaConf.create({"weight": 0.25, "avar": {"rewards": {"format": "${weight}"}}})
    assert parse(GRPOSettings, config).rewards == (Term("format", 0.25),)


def test_without_a_block_the_recipe_to_start_from_is_named():
    with pytest.raises(ValueError, match="no `avar:` block; start from recipes/config"):
        parse(SFTSettings, OmegaConf.create({"trainer": {}}))


@pytest.mark.parametrize(
    ("parser", "avar", "expected"),
    [
        (sft, {"gudiance": {}}, "unknown configuration key avar.gudiance; known: guidance, profile"),
        (sft, {"rewards": {}}, "unknown configuration key avar.rewards"),  # a key of the other stage
        (sft, {"guidance": {"gamma": 1}}, "unknown configuration key avar.guidance.gamma; known: alpha, beta, eps"),
        (grpo, {"reward": {"accuracy": 1}}, "unknown configuration key avar.reward; known: attention, groups, guard"),
        (grpo, {"attention": {"heads": 1}}, "unknown configuration key avar.attention.heads"),
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
    assert grpo(guard={"min_correlation": "9e-1"}).guard.min_correlation == 0.9
    assert grpo(rewards={"format": "3e-1"}).rewards[0].weight == 0.3


def test_lists_become_tuples():
    assert sft(guidance={"layers": [0, 2]}).guidance.layers == (0, 2)
    assert grpo(attention={"layers": [1]}).attention.layers == (1,)
    assert hash(grpo(attention={"layers": [1]}))  # frozen bundles all the way down


@pytest.mark.parametrize(
    ("parser", "avar", "expected"),
    [
        (sft, {"guidance": {"alpha": "much"}}, "avar.guidance.alpha must be a number, not 'much'"),
        (sft, {"guidance": {"alpha": True}}, "avar.guidance.alpha must be a number, not True"),
        (sft, {"guidance": {"alpha": None}}, "avar.guidance.alpha must be a number, not None"),
        (sft, {"guidance": {"alpha": [0.1]}}, "avar.guidance.alpha must be a number, not [0.1]"),
        (sft, {"guidance": {"alpha": -0.1}}, "greater than or equal to 0"),
        (sft, {"guidance": {"alpha": float("nan")}}, "finite number"),
        (sft, {"guidance": {"eps": 0}}, "greater than 0"),
        (sft, {"guidance": {"queries": "system"}}, "queries"),
        (sft, {"guidance": {"layers": 3}}, "avar.guidance.layers must be a list of layer indices or null, not 3"),
        (sft, {"guidance": {"layers": ["first"]}}, "avar.guidance.layers must be a list of layer indices or null"),
        (sft, {"guidance": 0.15}, "avar.guidance must be a mapping, not 0.15"),
        (grpo, {"rewards": None}, "avar.rewards must be a mapping of names to weights, not None"),
        (grpo, {"rewards": {"format": -1}}, "avar.rewards.format.weight: Input should be greater than or equal to 0"),
        (grpo, {"on_reward_error": "ignore"}, "avar.on_reward_error must be 'stop' or 'mask', not 'ignore'"),
        (grpo, {"attention": {"measure": "yes"}}, "avar.attention.measure must be true or false, not 'yes'"),
        (grpo, {"groups": {"normalise": "loud"}}, "avar.groups.normalise must be 'total' or 'parts', not 'loud'"),
        (grpo, {"guard": {"step_minutes": "soon"}}, "avar.guard.step_minutes must be a number, not 'soon'"),
    ],
)
def test_bad_values_are_named(parser, avar, expected):
    with pytest.raises(ValueError) as error:
        parser(**avar)
    assert expected in str(error.value)


def test_paths_of_reward_files_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = {"format": 0.1, "own": {"weight": 1, "path": "plug/own.py"}, "off": {"weight": 1, "path": None}}
    config = OmegaConf.create({"avar": {"rewards": lines}})
    absolute_paths(config)
    assert config.avar.rewards == lines | {"own": {"weight": 1, "path": f"{tmp_path}/plug/own.py"}}
    absolute_paths(OmegaConf.create({"avar": {}}))
