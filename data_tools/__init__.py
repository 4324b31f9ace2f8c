"""Data for the pipeline: miniature world and model, verl row formats, validator, preparation of real data."""
