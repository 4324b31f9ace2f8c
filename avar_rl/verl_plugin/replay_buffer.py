"""verl's replay buffer with a poll interval that suits short rollouts."""

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer


class PromptReplayBuffer(ReplayBuffer):
    """verl polls its queue every 2 s, which is longer than a whole rollout of a miniature."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.poll_interval = 0.05
