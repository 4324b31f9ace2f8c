"""Responses are counted by hand: two prompts of two responses each."""

import pytest

from avar_rl.verl_plugin.grpo.arrivals import MissingResponsesError, require_all_responses


def check(*keys: str, prompts: int = 2) -> None:
    require_all_responses(keys, prompts=prompts, per_prompt=2, step=7)


def test_all_responses_pass_also_where_one_has_several_trajectories():
    check("a_0_0", "a_1_0", "b_0_0", "b_1_0")
    check("a_0_0", "a_0_1", "a_1_0", "b_0_0", "b_1_0")


def test_missing_responses_stop_the_step():
    with pytest.raises(MissingResponsesError, match="^1 of the 4 responses of step 7 are missing, of 1 of 2 prompts"):
        check("a_0_0", "a_1_0", "b_1_0")
    with pytest.raises(MissingResponsesError, match="^1 of the 4"):  # a second trajectory is no second response
        check("a_0_0", "a_1_0", "b_1_0", "b_1_1")


def test_a_prompt_without_any_response_is_missed():
    with pytest.raises(MissingResponsesError, match="^2 of the 4 responses of step 7 are missing, of 1 of 2 prompts"):
        check("a_0_0", "a_1_0")
    with pytest.raises(MissingResponsesError, match="^4 of the 4"):
        check()
