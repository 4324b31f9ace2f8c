"""The lines of a step on the console (those of the parts: tests/contracts/test_grpo_rewards.py)."""

from avar_rl.verl_plugin.watch import console


def test_shown_metrics_in_their_order_and_others_left_out():
    metrics = {"train/grad_norm": 1.236, "train/loss": 2.0, "perf/mfu": 0.5, "train/lr": 2e-3}
    assert console.line(10, metrics, console.SFT) == "step 10 | loss 2.0000 | grad 1.24 | lr 2.0e-03"


def test_the_reward_is_on_the_line_and_its_parts_below():
    metrics = {
        "reward/total": 0.8345,
        "reward/accuracy": 0.5,
        "reward/format": 1.0,
        "reward_rate/undecided": 0.25,
        "reward/groups_without_accuracy_spread": 0.125,
        "timing_s/step": 7.04,
    }
    expected = "step 3 | reward 0.835 | accuracy 0.500 | flat groups 0.12 | undecided 0.250 | step 7.0 s"
    assert console.line(3, metrics, console.GRPO) == expected


def test_without_a_visual_reward_nothing_stands_for_it():
    assert console.line(1, {"reward/accuracy": 0.0}, console.GRPO) == "step 1 | accuracy 0.000"


def test_numbers_of_torch_are_printed_as_numbers():
    import torch

    assert console.line(0, {"train/loss": torch.tensor(1.5)}, console.SFT) == "step 0 | loss 1.5000"


def test_nothing_measured():
    assert console.line(7, {}, console.SFT) == "step 7"
