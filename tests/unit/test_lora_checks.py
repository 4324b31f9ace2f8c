"""LoRA settings that verl and PEFT would take without a word are refused before a stage starts, in one sentence."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from avar_rl.adapters import write_adapter
from avar_rl.verl_plugin.config.lora import check_lora


@dataclass
class ModelNode:
    """The keys of verl's `model` node that the check reads; the defaults are verl's and recipes/config's."""

    path: str
    lora_rank: Any = 0
    lora_alpha: Any = 16
    target_modules: Any = "all-linear"
    exclude_modules: str | None = ".*visual.*"
    lora_adapter_path: str | None = None
    lora: dict = field(default_factory=lambda: {"rank": 0})


def check(model: Path, rollout: bool = False, **settings) -> None:
    node = OmegaConf.create(asdict(ModelNode(str(model), **settings)))
    assert OmegaConf.is_dict(node)
    check_lora(node, rollout=rollout)


@pytest.fixture(scope="module")
def base(tiny_world):
    return tiny_world / "base"


@pytest.mark.parametrize("rollout", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora_rank": 0, "lora_alpha": 0},  # no adapters: nothing to check
        {"lora_rank": 8},
        {"lora_rank": 8, "target_modules": ["q_proj", "v_proj"], "exclude_modules": None},
        {"lora_rank": 8, "target_modules": r".*language_model.*\.(q|k)_proj", "exclude_modules": None},
        {"lora_rank": 512, "lora_alpha": 1},
    ],
)
def test_good_settings_pass(settings, rollout, base):
    check(base, rollout, **settings)


@pytest.mark.parametrize("rollout", [False, True])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lora_rank": -1}, "model.lora_rank=-1 must be a whole number: 0 for none"),
        ({"lora_rank": 7.5}, "model.lora_rank=7.5 must be a whole number"),
        ({"lora_rank": True}, "model.lora_rank=True must be a whole number"),
        ({"target_modules": ["q_proj"]}, r"model.target_modules=\['q_proj'\] does nothing with model.lora_rank=0"),
        ({"lora_adapter_path": "some/adapter"}, "model.lora_adapter_path=some/adapter does nothing with"),
        ({"lora": {"rank": 8}}, "model.lora.rank=8 is Megatron's; for FSDP set model.lora_rank"),
        ({"lora_rank": 8, "lora_alpha": 0}, "model.lora_alpha=0 must be a whole number above 0"),
        ({"lora_rank": 8, "lora_alpha": -2}, "model.lora_alpha=-2 must be"),
        ({"lora_rank": 8, "target_modules": ["q_proj", "query"]}, "names query, which .* does not have; .*q_proj"),
        ({"lora_rank": 8, "target_modules": "query"}, "no adapters can be put into .*target_modules=query.*targeted"),
        ({"lora_rank": 8, "target_modules": []}, r"no adapters can be put into .*model.target_modules=\[\]"),
        ({"lora_rank": 8, "exclude_modules": ".*"}, "no adapters can be put into .*All modules were excluded"),
        ({"lora_rank": 8, "target_modules": ["input_layernorm"]}, "no adapters can be put into .*RMSNorm.*not supp"),
        ({"lora_rank": 8, "target_modules": ["lm_head"]}, "adapters on lm_head are not supported"),
        ({"lora_rank": 8, "target_modules": ["q_proj", "embed_tokens"]}, "adapters on model.language_model.embed_tok"),
    ],
)
def test_mistakes_are_refused(settings, sentence, rollout, base):
    with pytest.raises(ValueError, match=sentence) as error:
        check(base, rollout, **settings)
    assert "\n" not in str(error.value)


def test_adapters_in_the_vision_tower_are_for_sft_only_as_vllm_does_not_serve_them(base):
    settings = {"lora_rank": 8, "exclude_modules": None}
    check(base, rollout=False, **settings)
    with pytest.raises(ValueError, match="adapters on model.visual.*and 11 other .*exclude_modules='.\\*visual"):
        check(base, rollout=True, **settings)


def test_a_rank_that_vllm_does_not_serve_is_for_sft_only(base):
    check(base, rollout=False, lora_rank=513)
    with pytest.raises(ValueError, match="model.lora_rank=513 is more than the 512"):
        check(base, rollout=True, lora_rank=513)


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-VL-7B-Instruct", "/not/made/yet"])
def test_the_modules_of_a_model_that_is_not_there_are_not_looked_at(model):
    check(Path(model), lora_rank=8, target_modules=["query"])
    with pytest.raises(ValueError, match="lora_alpha=0"):
        check(Path(model), lora_rank=8, lora_alpha=0)


@pytest.fixture
def adapter(base, tmp_path):
    """An adapter of rank 8 on the miniature's queries, trained on other weights than the miniature's."""
    from peft import LoraConfig

    config = LoraConfig(r=8, target_modules=["q_proj"], exclude_modules=".*visual.*")
    write_adapter(tmp_path / "adapter", {}, config, base="elsewhere", base_fingerprint="of other weights")
    return tmp_path / "adapter"


def test_an_adapter_to_go_on_from_is_there_of_the_same_rank_and_of_this_model(adapter, base, tmp_path):
    with pytest.raises(ValueError, match="has no adapter_config.json: not an adapter in PEFT's format"):
        check(base, lora_rank=8, lora_adapter_path=str(tmp_path))
    with pytest.raises(ValueError, match="has rank 8, not model.lora_rank=4"):
        check(base, lora_rank=4, lora_adapter_path=str(adapter))
    with pytest.raises(ValueError, match="was trained on other weights than those of model.path="):
        check(base, lora_rank=8, lora_adapter_path=str(adapter))
    (adapter / "trained_over.json").unlink()  # of PEFT's own making: nothing is known
    check(base, rollout=True, lora_rank=8, lora_adapter_path=str(adapter))


def test_another_architecture_is_refused_as_everywhere(base, tmp_path):
    model = shutil.copytree(base, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "llava"}))
    with pytest.raises(ValueError, match="'llava' has no support"):
        check(model, lora_rank=8)
