"""Normalised text to trees."""
