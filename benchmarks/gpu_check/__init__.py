"""The check for a machine with a GPU and little else: `python -m benchmarks.gpu_check --out FILE.json`.

Six parts, in this order; `parts.PARTS` has their time limits. What it needs: requirements/gpu_check.txt.
"""
