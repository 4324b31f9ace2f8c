"""The text rewards, scored by verl's reward-loop workers while the rollout still runs."""

import asyncio

from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from avar_rl.verl_plugin.settings import GRPOSettings, parse
from rewards.accuracy import accuracy
from rewards.format import format_reward


class TextRewardManager(RewardManagerBase):
    """Accuracy and format of one response; the visual part follows in the trainer, once the actor has run over it.

    An unscorable gold raises (accuracy's ValueError): it is a data error, not a wrong answer.
    """

    def __init__(self, config, tokenizer, compute_score=None, reward_router_address=None, reward_model_tokenizer=None):
        super().__init__(config, tokenizer, compute_score)
        self.weights = parse(GRPOSettings, config).reward

    async def run_single(self, data: DataProto) -> dict:
        item = data[-1:][0]
        length = int(item.non_tensor_batch["response_len"])  # the batch is padded
        response = self.tokenizer.decode(item.batch["responses"][:length], skip_special_tokens=True)
        gold = item.non_tensor_batch["reward_model"]["ground_truth"]
        # Off the event loop: grading may wait for its worker process.
        correct = await asyncio.get_running_loop().run_in_executor(None, accuracy, response, gold)
        parts = {"accuracy": correct, "format": format_reward(response)}
        score = self.weights.accuracy * parts["accuracy"] + self.weights.format * parts["format"]
        return {"reward_score": score, "reward_extra_info": parts}
