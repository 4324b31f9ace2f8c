"""Converters of public data sets to `data_tools.formats.sample.DataSample`: `python -m data_tools.convert SOURCE OUT`."""
