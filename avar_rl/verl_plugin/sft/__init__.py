"""Cold start: `avar sft RECIPE [key=value …]`, also `python -m avar_rl.verl_plugin.sft`."""
