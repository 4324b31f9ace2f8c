"""The notebooks of examples/ run from top to bottom, on the CPU and offline, and print what is committed."""

import re

import nbformat
import pytest

from examples.refresh import NOTEBOOKS, executed, printed

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def images(cell) -> list:
    return [output for output in cell.outputs if "image/png" in output.get("data", {})]


def test_both_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["attention", "reward"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_is_committed(path, tmp_path):
    committed = code(nbformat.read(path, as_version=4))
    for old, new in zip(committed, code(executed(path, tmp_path)), strict=True):
        assert NUMBER.sub("0", printed(new)) == NUMBER.sub("0", printed(old)), f"run python examples/refresh.py {path}"
        numbers = [[float(number) for number in NUMBER.findall(printed(cell))] for cell in (new, old)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=0.002)  # another processor rounds differently
        assert len(images(new)) == len(images(old))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_one_clean_run(path):
    cells = code(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
    assert path.stat().st_size < 300_000, "images are to be small: notebooks are part of every clone"
