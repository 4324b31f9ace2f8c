"""Responses are counted by hand: two prompts of two responses each."""

import pytest
import torch

from avar_rl.verl_plugin.grpo.arrivals import MissingResponsesError, require_images, require_whole, share_missing

A, B = "a_0_0", "b_0_0"


def share(*keys: str, on_missing: str = "stop") -> float:
    return share_missing(keys, prompts=2, per_prompt=2, step=7, on_missing=on_missing)


def test_all_responses_pass_also_where_one_has_several_trajectories():
    assert share("a_0_0", "a_1_0", "b_0_0", "b_1_0") == 0
    assert share("a_0_0", "a_0_1", "a_1_0", "b_0_0", "b_1_0") == 0


def test_missing_responses_stop_the_step():
    with pytest.raises(MissingResponsesError, match="^1 of the 4 responses of step 7 are missing, of 1 of 2 prompts"):
        share("a_0_0", "a_1_0", "b_1_0")
    with pytest.raises(MissingResponsesError, match="^1 of the 4"):  # a second trajectory is no second response
        share("a_0_0", "a_1_0", "b_1_0", "b_1_1")


def test_a_prompt_without_any_response_is_missed():
    with pytest.raises(MissingResponsesError, match="^2 of the 4 responses of step 7 are missing, of 1 of 2 prompts"):
        share("a_0_0", "a_1_0")
    with pytest.raises(MissingResponsesError, match="^4 of the 4"):
        share()


def test_more_responses_to_one_prompt_do_not_stand_for_those_to_another():
    with pytest.raises(MissingResponsesError, match="^1 of the 4 responses of step 7 are missing, of 1 of 2 prompts"):
        share("a_0_0", "a_1_0", "a_2_0", "b_0_0")


def test_by_option_the_others_are_trained_on_unless_there_are_none():
    assert share("a_0_0", "a_1_0", "b_1_0", on_missing="mask") == 1 / 4
    with pytest.raises(MissingResponsesError, match="^4 of the 4"):
        share(on_missing="mask")


def whole(log_probs: list[int], masses: list[int], value: float = 0.5) -> None:
    """Two responses of 3 and 2 tokens that came back with so many numbers."""
    columns = [[torch.full((n,), value) for n in lengths] for lengths in (log_probs, masses)]
    require_whole([A, B], [3, 2], {"old_log_probs": columns[0]}, {"image_mass": columns[1]}, step=7)


def test_log_probabilities_and_masses_of_every_token_are_wanted():
    whole([3, 2], [12, 8])  # four layers
    with pytest.raises(MissingResponsesError, match="^1 of the 2 responses of step 7.*of their old_log_probs.*b_0_0"):
        whole([3, 1], [12, 8])
    with pytest.raises(MissingResponsesError, match="^1 of the 2 responses of step 7.*of their image_mass.*a_0_0"):
        whole([3, 2], [9, 8])  # three layers of the first, four of the second
    with pytest.raises(MissingResponsesError, match="^2 of the 2 responses of step 7.*of their image_mass"):
        whole([3, 2], [0, 0])
    with pytest.raises(MissingResponsesError, match="^2 of the 2 responses of step 7.*of their old_log_probs"):
        whole([3, 2], [12, 8], value=float("nan"))


def test_a_response_of_no_tokens_has_no_numbers():
    nothing = torch.tensor([])
    require_whole([A, B], [0, 1], {"p": [nothing, torch.ones(1)]}, {"m": [nothing, torch.ones(4)]}, step=1)


def test_a_prompt_has_as_many_images_as_its_row_or_more():
    require_images([A, B], asked=[1, 0], seen=[1, 2], step=3)  # a video has marks like those of images
    with pytest.raises(MissingResponsesError, match="^1 of the 2 responses of step 3.*of their images.*a_0_0"):
        require_images([A, B], asked=[2, 0], seen=[1, 0], step=3)
