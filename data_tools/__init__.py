"""Data for the pipeline: the miniature world and model, verl's row formats, the validator, and preparation of real data."""
