"""Cold start: `python -m avar_rl.verl_plugin.sft RECIPE [key=value …]`."""
