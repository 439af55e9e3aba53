"""Runs docs/notebook.ipynb anew and writes its outputs into it: python scripts/make_notebook.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"
NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def run(notebook: Any) -> Any:
    """The notebook with the outputs of a kernel of this Python; nothing of the machine or the hour stays in it."""
    NotebookClient(notebook, timeout=300, kernel_name="python3", store_widget_state=False).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(WIDGET, None)  # without a kernel its picture is what shows
    return notebook


if __name__ == "__main__":
    read: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.write(run(read), NOTEBOOK)  # type: ignore[no-untyped-call]
