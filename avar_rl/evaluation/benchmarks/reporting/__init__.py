"""Figures and verdicts → tables, a page for each model, comparisons, exports, what stands in training data."""
