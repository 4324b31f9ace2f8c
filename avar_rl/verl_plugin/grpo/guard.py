"""The check of a run's first steps: do the rollout engine and the actor compute the same policy?"""

from avar_rl.runtime.console import tell
from avar_rl.verl_plugin.config.settings import GuardSettings

# The first rollout shows whether both run the same model; the second, whether the first update has reached vLLM. Fresh
# adapters change nothing: before their first update a rollout without them agrees.
CHECKED_STEPS = 2
_CAUSES = """Likely causes:
  - rollout.load_format=dummy: vLLM overwrites a buffer of Qwen2.5-VL that no weight sync restores; set it to auto;
  - the rollout runs another model, another chat template or other image settings than the actor;
  - the weight sync before this step failed or was skipped, or left out adapters (model.lora_rank) that are trained;
  - a precision that differs too much between rollout.dtype and the actor's forward."""


def check_agreement(metrics: dict[str, float], guard: GuardSettings, rollout_dtype: str, step: int) -> None:
    """Checks that rollout and actor give the sampled tokens correlated (and, in fp32, equal) probabilities.

    Args:
        metrics: verl's, after the old-log-prob pass of a step.
        guard: the limits.
        rollout_dtype: `rollout.dtype`; the largest difference is checked for "float32" and "fp32" only.
        step: the number of the step.

    Raises:
        RuntimeError: they do not, or verl measured neither (it does with rollout.calculate_log_probs=True).
    """
    names = ("training/rollout_actor_probs_pearson_corr", "training/rollout_probs_diff_max")
    absent = [name for name in names if name not in metrics]
    if absent:
        raise RuntimeError(f"verl logged no {absent[0]}; the start-up guard needs rollout.calculate_log_probs=True")
    correlation, difference = (float(metrics[name]) for name in names)
    fp32 = str(rollout_dtype) in ("float32", "fp32")
    if correlation > guard.min_correlation and (not fp32 or difference < guard.max_difference_fp32):
        figures = f"correlation {correlation:.6f}, largest {difference:.2g}"
        tell(f"start-up guard: rollout and actor agree at step {step} ({figures})")
        return
    raise RuntimeError(
        f"rollout and actor disagree at step {step}: correlation {correlation:.4f} "
        f"(needs > {guard.min_correlation}), largest difference of a token's probability {difference:.2g} "
        f"(fp32 needs < {guard.max_difference_fp32}).\n{_CAUSES}"
    )
