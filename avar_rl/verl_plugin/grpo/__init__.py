"""Reinforcement: `python -m avar_rl.verl_plugin.grpo RECIPE [key=value …]`."""
