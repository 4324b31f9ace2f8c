"""The start-up guard: rollout and actor must agree at the first steps."""

import math

import pytest

from avar_rl.verl_plugin.config.settings import GuardSettings
from avar_rl.verl_plugin.grpo.guard import check_agreement

GUARD = GuardSettings(min_correlation=0.99, max_difference_fp32=1e-3)
CORRELATION, DIFFERENCE = "training/rollout_actor_probs_pearson_corr", "training/rollout_probs_diff_max"


def metrics(correlation: float, difference: float) -> dict[str, float]:
    return {CORRELATION: correlation, DIFFERENCE: difference}


@pytest.mark.parametrize("dtype", ["float32", "fp32", "bfloat16"])
def test_agreement_passes_and_says_so(dtype, capsys):
    check_agreement(metrics(0.9999, 5e-4), GUARD, dtype, 1)
    assert "agree at step 1 (correlation 0.999900, largest 0.0005)" in capsys.readouterr().out


@pytest.mark.parametrize("correlation", [0.99, 0.5, -1.0])  # 0.99 itself is not above 0.99
def test_a_low_correlation_is_refused_with_the_likely_causes(correlation):
    with pytest.raises(RuntimeError, match="disagree at step 1") as error:
        check_agreement(metrics(correlation, 0.0), GUARD, "bfloat16", 1)
    assert "load_format=dummy" in str(error.value) and f"correlation {correlation:.4f}" in str(error.value)


def test_a_difference_is_refused_in_fp32_only():
    apart = metrics(0.9999, 1e-3)  # the limit itself is too much
    for dtype in ("float32", "fp32"):
        with pytest.raises(RuntimeError, match="largest difference of a token's probability 0.001"):
            check_agreement(apart, GUARD, dtype, 1)
    check_agreement(apart, GUARD, "bfloat16", 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_undefined_correlation_is_no_agreement(dtype):
    # verl logs NaN where no response has a valid token
    with pytest.raises(RuntimeError, match="correlation nan"):
        check_agreement(metrics(math.nan, 0.0), GUARD, dtype, 1)


def test_an_undefined_difference_is_no_agreement_in_fp32():
    with pytest.raises(RuntimeError, match="probability nan"):
        check_agreement(metrics(1.0, math.nan), GUARD, "float32", 1)


@pytest.mark.parametrize("absent", [CORRELATION, DIFFERENCE])
def test_a_missing_metric_names_the_setting_that_makes_it(absent):
    measured = metrics(1.0, 0.0)
    del measured[absent]
    with pytest.raises(RuntimeError, match=f"verl logged no {absent}.*rollout.calculate_log_probs=True"):
        check_agreement(measured, GUARD, "float32", 1)
