"""What a run says and does when something is killed, cut off or damaged: `python -m benchmarks.faults`."""
