"""Benchmarks: questions in their official number and order → responses → scores by two rules → reports.

`benchmark.py` is the registry. A folder or file of each benchmark's data is read by `data_tools.convert.strict`.
"""
