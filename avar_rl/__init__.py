"""avar_rl: reinforcement learning that makes vision-language models look before they answer (a plug-in to verl)."""
