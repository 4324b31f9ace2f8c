"""What a person sees of a run: curves, console lines, dashboards, the rollout record."""
