"""Runs the notebooks of this folder and writes their outputs into them: `python examples/refresh.py [NOTEBOOK …]`.

They are committed with their outputs, so that they can be read without being run; tests/unit/test_examples.py holds
both together.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
CELL_SECONDS = 240


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook at `path`, run on the CPU and offline with `folder` as its working directory.

    What goes to standard error (progress bars, warnings) and the times of running are left out.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    metadata = dict(notebook.metadata)
    with tempfile.TemporaryDirectory() as jupyter:  # the kernel is this environment's, whatever the user has installed
        private = dict.fromkeys(("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"), jupyter)
        os.environ |= private
        variables = os.environ | {
            "PYTHONPATH": str(FOLDER.parent), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        variables.pop("MPLBACKEND", None)
        client = NotebookClient(
            notebook, kernel_name="python3", timeout=CELL_SECONDS, resources={"metadata": {"path": str(folder)}}
        )
        client.execute(env=variables)
    notebook.metadata = nbformat.from_dict(metadata)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def printed(cell: nbformat.NotebookNode) -> str:
    """What a code cell wrote to standard output."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def main(names: list[str]) -> int:
    for path in [Path(name) for name in names] or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(path, Path(folder)), path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
