"""Every notebook runs from its first cell to its last, each in a kernel of its own."""

import os

import nbformat
import pytest
from nbclient import NotebookClient

from backends import FRAMEWORKS
from common.files import ROOT


@pytest.mark.parametrize("name", [*FRAMEWORKS, "compare"])
def test_a_notebook_runs(name, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    place = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(book, timeout=600, kernel_name="python3", resources=place).execute()
    printed = "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    if name == "compare":
        for framework in FRAMEWORKS:
            assert framework in printed
        assert "gradients" in printed
    else:
        assert printed.count("all ") >= 2, "the lines of the reference"
        assert "epoch 3: loss" in printed
