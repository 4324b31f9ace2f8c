"""Reinforcement learning: `avar grpo RECIPE [key=value …]`, also `python -m avar_rl.verl_plugin.grpo`."""
