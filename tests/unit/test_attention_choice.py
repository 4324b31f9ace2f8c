"""Which attention a stage trains with, by profile, packing, and whether flash-attn imports."""

import sys
import types

import pytest
from omegaconf import OmegaConf

from avar_rl.attention.varlen import NAME
from avar_rl.verl_plugin.config.attention import choose


@pytest.fixture
def flash_attn(monkeypatch):
    """A function that makes `import flash_attn` work or fail."""

    def installed(is_there: bool) -> None:
        monkeypatch.setitem(sys.modules, "flash_attn", types.ModuleType("flash_attn") if is_there else None)

    return installed


def stage(profile: str, packed: bool, named: str | None = "auto"):
    model = {"use_remove_padding": packed, "override_config": {"attn_implementation": named} if named else {}}
    return OmegaConf.create({"avar": {"profile": profile}, "model": model, "actor_rollout_ref": {"model": model}})


@pytest.mark.parametrize("named", ["auto", None])
@pytest.mark.parametrize(
    ("profile", "packed", "is_there", "chosen", "why"),
    [
        ("gpu", True, True, "flash_attention_2", "flash-attn is installed"),
        ("gpu", True, False, NAME, "torch's packed attention: flash-attn is not installed"),
        ("gpu", False, False, NAME, "torch's packed attention: flash-attn is not installed"),
        ("cpu", True, True, NAME, "torch's packed attention: there is no GPU"),
        ("cpu", False, True, "sdpa", "a CPU, padded batches"),
    ],
)
def test_the_choice_and_its_sentence(flash_attn, named, profile, packed, is_there, chosen, why):
    flash_attn(is_there)
    for name, where in (("sft", "model"), ("grpo", "actor_rollout_ref.model")):
        config = stage(profile, packed, named)
        assert choose(config, name) == f"attention: {chosen} ({why})"
        assert OmegaConf.select(config, f"{where}.override_config.attn_implementation") == chosen


def test_what_a_user_names_stands(flash_attn):
    flash_attn(True)
    for named in ("sdpa", "eager", "flash_attention_2", NAME):
        config = stage("gpu", True, named)
        assert choose(config, "sft") == f"attention: {named} (as model.override_config.attn_implementation says)"
        assert config.model.override_config.attn_implementation == named


@pytest.mark.parametrize(
    ("profile", "is_there", "why"), [("gpu", False, "flash-attn is not installed"), ("cpu", True, "there is no GPU")]
)
def test_flash_attn_where_it_cannot_run_is_refused(flash_attn, profile, is_there, why):
    flash_attn(is_there)
    with pytest.raises(ValueError, match=rf"^actor_rollout_ref\.model\..*=flash_attention_2: {why}; set it to auto"):
        choose(stage(profile, True, "flash_attention_2"), "grpo")


def test_a_flash_attn_that_does_not_import_says_so(tmp_path, monkeypatch):
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    assert choose(stage("gpu", True), "sft").endswith("flash-attn does not import (undefined symbol: _ZN3c10))")


@pytest.mark.parametrize("rest", [{}, {"text_config": {"rope_theta": 1e6}}])
def test_checkpoints_do_not_ask_for_the_implementation_of_the_training(flash_attn, rest):
    """verl writes override_config into their config.json; where it has a node model_config, only that."""
    flash_attn(False)
    for given in (rest, {"model_config": rest}):
        config = stage("gpu", True)
        config.model.override_config = {"attn_implementation": "auto", **given}
        choose(config, "sft")
        assert config.model.override_config == {"attn_implementation": NAME, "model_config": rest}
