"""Evaluation: generate with vLLM → grade with `rewards` → measure attention with transformers → one JSON per model.

Command lines: `python -m avar_rl.evaluation`, `.summary` (all stages of a run), `.same_text` (transformers = vLLM?).
"""
