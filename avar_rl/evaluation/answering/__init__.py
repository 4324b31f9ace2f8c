"""A model answers: questions → vLLM, here or in replicas on Ray → responses; and how much it looks at images.

What the commands of `avar_rl.evaluation` share; it knows nothing of scores.
"""
