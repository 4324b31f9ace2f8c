"""Rollout record: what each training step sampled and how it was scored, as JSONL and as one HTML page."""
