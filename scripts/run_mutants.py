"""Run mutmut on this project: make mutants, or python scripts/run_mutants.py run "softmap.words*".

mutmut changes a copy of the sources, in mutants/. An editable install would go on giving Python the sources themselves, so
that every mutant survived; its finder is taken away, and with it the compiled kernel.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "src"


def main() -> None:
    """Give the command line to mutmut."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != SOURCES.resolve()]
    runpy.run_module("mutmut", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
