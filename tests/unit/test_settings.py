"""The `avar:` block of a recipe: parsed once, mistakes named with their place."""

import copy
import pickle

import pytest
from omegaconf import OmegaConf

from avar_rl.verl_plugin.config.settings import GRPOSettings, SFTSettings, parse
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
        (sft, {"gudiance": {}}, "unknown key avar.gudiance (did you mean guidance?)"),
        (sft, {"rewards": {}}, "unknown key avar.rewards; known: guidance, profile"),  # a key of the other stage
        (sft, {"guidance": {"gamma": 1}}, "unknown key avar.guidance.gamma"),
        (grpo, {"reward": {"accuracy": 1}}, "unknown key avar.reward (did you mean rewards?)"),
        (grpo, {"attention": {"heads": 1}}, "unknown key avar.attention.heads; known: layers, measure"),
        (grpo, {"guard": {"minutes": 1}}, "unknown key avar.guard.minutes (did you mean step_minutes?)"),
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


def test_settings_travel_between_processes():
    attention = grpo(attention={"layers": [1]}).attention
    assert pickle.loads(pickle.dumps(attention)) == copy.deepcopy(attention) == attention


def test_layers_may_be_written_as_ranges():
    assert grpo(attention={"layers": "0-2,20"}).attention.layers == (0, 1, 2, 20)


@pytest.mark.parametrize(
    ("parser", "avar", "place", "reason"),
    [
        (sft, {"guidance": {"alpha": "much"}}, "avar.guidance.alpha", "number"),
        (sft, {"guidance": {"alpha": True}}, "avar.guidance.alpha", "number, not True"),
        (sft, {"guidance": {"queries": "system"}}, "avar.guidance.queries", "system"),
        (sft, {"guidance": {"alpha": None}}, "avar.guidance.alpha", "not None"),
        (sft, {"guidance": {"alpha": [0.1]}}, "avar.guidance.alpha", "not [0.1]"),
        (sft, {"guidance": {"alpha": -0.1}}, "avar.guidance", "-0.1"),
        (sft, {"guidance": {"alpha": float("nan")}}, "avar.guidance", "nan"),
        (sft, {"guidance": {"eps": 0}}, "avar.guidance", "eps"),
        (sft, {"guidance": {"layers": -3}}, "avar.guidance.layers", "not -3"),
        (sft, {"guidance": {"layers": ["first"]}}, "avar.guidance.layers", "first"),
        (sft, {"guidance": 0.15}, "avar.guidance", "must be a mapping of keys to values, not 0.15"),
        (sft, {"profile": "tpu"}, "avar.profile", "Input should be 'cpu' or 'gpu', not 'tpu'"),
        (grpo, {"rewards": None}, "avar.rewards", "must be a mapping of names to weights, not None"),
        (grpo, {"rewards": {"format": -1}}, "avar.rewards.format.weight", "greater than or equal to 0"),
        (grpo, {"on_reward_error": "ignore"}, "avar.on_reward_error", "should be 'stop' or 'mask', not 'ignore'"),
        (grpo, {"attention": {"measure": "yes"}}, "avar.attention.measure", "not 'yes'"),
        (grpo, {"attention": {"layers": [-1]}}, "avar.attention.layers.0", "not -1"),
        (grpo, {"attention": {"layers": [True]}}, "avar.attention.layers.0", "not True"),
        (grpo, {"attention": {"layers": "5-1"}}, "avar.attention.layers", "the range 5-1 runs backwards"),
        (grpo, {"groups": {"normalise": "loud"}}, "avar.groups.normalise", "should be 'total' or 'parts', not 'loud'"),
        (grpo, {"rollouts": {"every": 0}}, "avar.rollouts.every", "avar.rollouts.dir=null switches the record off"),
        (grpo, {"rollouts": {"every": 1.5}}, "avar.rollouts.every", "not 1.5"),
        (grpo, {"rollouts": {"dir": ""}}, "avar.rollouts.dir", "at least 1 character"),
        (grpo, {"guard": {"step_minutes": "soon"}}, "avar.guard.step_minutes", "number"),
        (grpo, {"guard": {"step_minutes": True}}, "avar.guard.step_minutes", "number, not True"),
        (grpo, {"guard": {"step_minutes": -1}}, "avar.guard.step_minutes", "not -1"),
        (grpo, {"guard": {"min_correlation": 1.5}}, "avar.guard.min_correlation", "not 1.5"),
    ],
)
def test_bad_values_are_named(parser, avar, place, reason):
    with pytest.raises(ValueError) as error:
        parser(**avar)
    assert place in str(error.value) and reason in str(error.value)
