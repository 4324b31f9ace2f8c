"""The VAS probe: how much a model looks at images, per layer and head. `python -m avar_rl.probe MODEL DATA`."""
