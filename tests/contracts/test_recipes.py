"""Every shipped recipe is composed and checked against verl's own configuration classes; mistakes get one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avar_rl.verl_plugin.config import environment

environment.prepare("cpu")  # before anything imports verl

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "recipes" / "config").glob("*_*.yaml"))


def run(capsys, stage: str, *arguments: str) -> tuple[int, str, str]:
    """The command of a stage, in this process: its exit status, standard output and standard error."""
    from avar_rl.verl_plugin.grpo import run as grpo
    from avar_rl.verl_plugin.sft import run as sft

    status = {"sft": sft, "grpo": grpo}[stage].main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_composes_and_verl_accepts_it(recipe, capsys):
    stage = "grpo" if recipe.endswith("_grpo") else "sft"
    status, out, err = run(capsys, stage, f"recipes/config/{recipe}", "--profile", "cpu", "--dry-run")
    assert status == 0, err
    assert f"profile: {'cpu' if recipe.startswith('tiny') else 'gpu'}" in out


@pytest.mark.parametrize("script", ["avar_tiny.sh", "avar_qwen7b.sh"])
def test_dry_run_of_a_recipe_prints_configurations_and_estimates_and_writes_nothing(script, tiny_world, tmp_path):
    rows = str(tiny_world / "data" / "sft_train.parquet")
    knobs = {"DRY_RUN": "1", "OUT": str(tmp_path / "out"), "PROFILE": "cpu", "MODEL": str(tiny_world / "base")}
    knobs |= {"AVAR_VENV": str(Path(sys.executable).parents[1]), "SFT_ROWS": rows}
    knobs |= {"RL_DATA": str(tiny_world / "data" / "rl_train.parquet"), "MAX_PIXELS": "100000"}
    done = subprocess.run(
        ["bash", str(ROOT / "recipes" / script)],
        env={**os.environ, **knobs}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    trainings = 3 if script == "avar_tiny.sh" else 2  # the miniature's base is pre-trained, too
    assert done.stdout.count("avar:\n") == trainings and "# stage evaluation" in done.stdout
    assert f"train_files: {rows}" in done.stdout and "stage sft_data" not in done.stdout
    assert "stage grpo, host memory" in done.stdout and "│ processes" in done.stdout
    assert ("disk at OUT" in done.stdout) == (script == "avar_qwen7b.sh")  # the miniature is yet to be made
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stage", "overrides", "expected"),
    [
        ("sft", ["+data.max_lenght=5"], "unknown key data.max_lenght (did you mean max_length"),
        ("sft", ["+engine.wrap_policy.layers=[x]"], "unknown key engine.wrap_policy.layers"),
        ("sft", ["+avar.guidance.gamma=1"], "unknown key avar.guidance.gamma"),
        ("sft", ["avar.guidance.alpha=-1"], "avar.guidance"),
        ("sft", ["data.train_batch_size=33", "trainer.n_gpus_per_node=2"], "33 is not a multiple of the 2 ranks"),
        ("sft", ["data.micro_batch_size_per_gpu=5"], "not a multiple of data.micro_batch_size_per_gpu=5"),
        (
            "sft",
            ["data.use_dynamic_bsz=true", "data.max_length=32768"],
            "data.max_token_len_per_gpu=8192 is less than the 32768 tokens of a sequence",
        ),
        (
            "grpo",
            ["actor_rollout_ref.actor.use_dynamic_bsz=true", "data.max_response_length=16384"],
            "actor.ppo_max_token_len_per_gpu=16384 is less than the 16512 tokens of a sequence",
        ),
        ("grpo", ["data.max_response_length=200"], "rollout.max_model_len=256 is less than data.max_prompt_length + "),
        ("sft", ["data.train_files=/nowhere.parquet"], "/nowhere.parquet: no such file"),
        ("grpo", ["+trainer.colour=red"], "unknown key trainer.colour"),
        ("grpo", ["algorithm.rollout_correction.bypass_mode=true"], "bypass_mode=True skips the forward pass"),
        ("grpo", ["trainer.v1.trainer_mode=colocate_async"], "is not 'sync'"),
        ("grpo", ["actor_rollout_ref.model.override_config.attn_implementation=flex_attention"], "is not recorded"),
        ("grpo", ["avar.rewards.visual.mode=loud"], "Input should be 'ratio', 'share' or 'rank', not 'loud'"),
        ("grpo", ["+avar.rewards.visual.lambda=1"], "unknown key avar.rewards.visual.lambda; visual ("),
        ("grpo", ["~avar.rewards.accuracy"], "visual is gated by accuracy, which is not among avar.rewards"),
        ("grpo", ["+avar.rewards.fromat=1"], "unknown reward fromat; did you mean format"),
        ("grpo", ["+avar.rewards.own={weight: 1, path: no.py}"], "no.py: no such file"),
        ("grpo", ["algorithm.filter_groups={enable: true, metric: reward}"], "groups are filtered by accuracy, never"),
        ("grpo", ["algorithm.adv_estimator=gdpo"], "set avar.groups.normalise=parts"),
        (
            "grpo",
            ["avar.groups.normalise=parts", "algorithm.use_kl_in_reward=true"],
            "needs algorithm.adv_estimator=grpo",
        ),
        (
            "grpo",
            ["+avar.rewards.dependence=0.1"],
            "reward dependence (avar.rewards.dependence) needs a blind pass, and avar.blind is null: set avar.blind={}",
        ),
        (
            "grpo",
            ["avar.rewards.visual=0", "avar.blind={}", "algorithm.rollout_correction.bypass_mode=true"],
            "avar.blind needs a pass of the actor before each step, but algorithm.rollout_correction.bypass_mode=True",
        ),
        ("grpo", ["avar.blind={share: 2}"], "avar.blind.share: Input should be less than or equal to 1, not 2"),
        (
            "grpo",
            ["+avar.token_weights.vppo={}"],
            "the token weight vppo (avar.token_weights.vppo) needs a blind pass, and avar.blind is null",
        ),
        (
            "grpo",
            ["+avar.token_weights.entropy_top.share=2"],
            "entropy_top.share: Input should be less than or equal to 1",
        ),
        (
            "grpo",
            ["+avar.token_weights.entropy_top={}", "actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean"],
            "undoes avar.token_weights (entropy_top)",
        ),
        (
            "grpo",
            ["avar.rewards.visual=0", "algorithm.rollout_correction.bypass_mode=true"],
            "algorithm.rollout_correction.bypass_mode=True: it skips the actor's pass over the responses",
        ),
        ("grpo", ["actor_rollout_ref.rollout.n=1"], "rollout.n=1"),
        ("grpo", ["data.train_batch_size=20"], "160 samples a device are not a multiple of actor_rollout_ref.rollout"),
        ("grpo", ["data.train_batch_size=12", "trainer.n_gpus_per_node=5"], "verl refuses the configuration"),
    ],
)
def test_a_mistake_is_one_sentence(stage, overrides, expected, capsys):
    status, _, err = run(capsys, stage, f"recipes/config/tiny_{stage}", "--profile", "cpu", *overrides)
    assert status == 2
    assert expected in err and "Traceback" not in err


def test_without_weight_a_reward_needs_no_blind_pass(capsys):
    for overrides in (["+avar.rewards.dependence=0"], ["+avar.rewards.dependence=0.1", "avar.blind={mask: tokens}"]):
        status, _, err = run(capsys, "grpo", "recipes/config/tiny_grpo", "--profile", "cpu", *overrides, "--dry-run")
        assert status == 0, err


@pytest.mark.parametrize(("stage", "engine"), [("sft", "engine"), ("grpo", "actor_rollout_ref.actor.fsdp_config")])
def test_layers_to_shard_may_be_named_as_verl_reads_them(stage, engine, capsys):
    layers = f"+{engine}.wrap_policy.transformer_layer_cls_to_wrap=[Qwen2_5_VLDecoderLayer]"
    status, _, err = run(capsys, stage, f"recipes/config/tiny_{stage}", "--profile", "cpu", layers, "--dry-run")
    assert status == 0, err


def test_without_a_visual_weight_nothing_is_refused(capsys):
    overrides = ["avar.rewards.visual=0", "actor_rollout_ref.model.override_config.attn_implementation=flex_attention"]
    overrides += ["--dry-run"]
    assert run(capsys, "grpo", "recipes/config/tiny_grpo", "--profile", "cpu", *overrides)[0] == 0


@pytest.mark.parametrize("module", ["avar_rl.verl_plugin.sft", "avar_rl.verl_plugin.grpo", "avar_rl.export"])
def test_help_imports_none_of_the_stack(module):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "usage:" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert not imported & {"torch", "verl", "ray", "vllm", "transformers"}


def test_groups_without_accuracy_are_neither_filtered_nor_masked_by_it(capsys):
    for setting in ("algorithm.filter_groups.enable=true", "avar.groups.mask_uniform_accuracy=true"):
        overrides = ["~avar.rewards.accuracy", "~avar.rewards.visual", setting]
        status, _, err = run(capsys, "grpo", "recipes/config/tiny_grpo", "--profile", "cpu", *overrides)
        assert status == 2 and "needs the reward accuracy; list it in avar.rewards" in err


def test_a_reward_that_is_listed_twice_is_refused(tmp_path, capsys):
    path = tmp_path / "twice.yaml"
    path.write_text("avar:\n  rewards: {format: 0.1, format: 0.2}\n")
    status, _, err = run(capsys, "grpo", str(path), "--profile", "cpu")
    assert status == 2 and "twice.yaml is not a valid recipe" in err and "found duplicate key format" in err


def test_the_config_that_verl_saves_with_a_model_does_not_name_the_attention_of_the_training(tiny_world):
    """Elsewhere that attention may not exist, and transformers would refuse to load the checkpoint."""
    from verl.utils.config import omega_conf_to_dataclass

    from avar_rl.verl_plugin.config import recipe

    overrides = [f"model.path={tiny_world / 'base'}", "model.use_remove_padding=true"]
    overrides += ["+model.override_config.initializer_range=0.125"]
    config = recipe.load(str(ROOT / "recipes/config/tiny_sft"), overrides, stage="sft")
    hf_config = omega_conf_to_dataclass(config.model).hf_config
    assert hf_config._attn_implementation == hf_config.vision_config._attn_implementation == "torch_flash_varlen"
    assert "torch_flash_varlen" not in hf_config.to_json_string()
    assert hf_config.initializer_range == 0.125  # what else stands in override_config still counts
