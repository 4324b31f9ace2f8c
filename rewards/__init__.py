"""Rewards: one file each, named by recipes (`rewards.plugin`), combined by `rewards.combine`."""
