"""Normalised text to trees of mathematics."""
