"""What all commands of data_tools have in common: help that loads nothing heavy."""

import subprocess
import sys

import pytest

COMMANDS = ("prepare", "validate", "inspect", "convert.__main__", "miniature.data", "miniature.model")
HEAVY = ("pandas", "pyarrow", "torch", "transformers", "datasets")
CHILD = """
import importlib, sys
try:
    importlib.import_module(sys.argv[1]).main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
print("loaded:", *sorted(name for name in sys.argv[2:] if name in sys.modules))
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command):
    argv = [sys.executable, "-c", CHILD, f"data_tools.{command}", *HEAVY]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert (
        printed.startswith(("usage: avar ", "usage: python -m data_tools.miniature."))
        and printed.splitlines()[-1] == "loaded:"
    )
