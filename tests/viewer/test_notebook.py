"""docs/notebook.ipynb runs, and what it says is what stands in it."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def said(notebook):
    """Each cell's outputs as plain text, and the kinds that they have."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            found.append((output.output_type, output.get("text", data.get("text/plain")), sorted(data)))
    return found


def test_nothing_of_a_machine_stands_in_it():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not any(place in text for place in ("/home", "/work", "/tmp", "/root", "site-packages", "Traceback"))
    assert {output.output_type for cell in notebook.cells for output in cell.get("outputs", ())} == {
        "execute_result",
        "stream",
    }
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == list(range(1, 7))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_it_says_what_stands_in_it():
    spec = importlib.util.spec_from_file_location("make_notebook", ROOT / "scripts" / "make_notebook.py")
    make_notebook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_notebook)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert said(make_notebook.run(copy.deepcopy(notebook))) == said(notebook), "run scripts/make_notebook.py"
