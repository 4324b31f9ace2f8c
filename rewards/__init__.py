"""Rewards: one file each, plain functions. `accuracy.accuracy` is imported from its module, whose name it shares."""

from rewards.format import format_reward
from rewards.grading import check_gold, extract_answer
from rewards.score import RewardWeights, Score
from rewards.visual import token_visual_score, visual_reward

__all__ = [
    "RewardWeights",
    "Score",
    "check_gold",
    "extract_answer",
    "format_reward",
    "token_visual_score",
    "visual_reward",
]
