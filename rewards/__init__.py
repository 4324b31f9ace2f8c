"""Rewards: one file each, named by recipes (`rewards.plugin`), added up by `rewards.combine`."""
