"""Visual-anchored data synthesis (arXiv 2603.03825, stage 1): describe -> reason -> anchor -> filter -> export.

`python -m data_tools.synthesis RECIPE.yaml`. Every teacher call is journalled before it counts, and the outcome of a
row is a pure function of the journal (`stages.Tracer`): a run may be killed anywhere and goes on where it was.
"""
