"""Converters of public data sets to files of samples: `python -m data_tools.convert SOURCE OUT`."""
