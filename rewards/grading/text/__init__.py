"""Answers as text: normalising, extracting, words, units, letters of choices."""
