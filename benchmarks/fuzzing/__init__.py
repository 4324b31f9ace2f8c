"""Coverage-guided fuzzing of what reads text and files of strangers: `python -m benchmarks.fuzzing`."""
