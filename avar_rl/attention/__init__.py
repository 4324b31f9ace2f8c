"""Measures how much attention goes where: token roles, span masses, and their recording in a model's forward pass."""
