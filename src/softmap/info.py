"""What softmap runs on, and which of its kernels are usable here: what `softmap info` prints."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import torch
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from softmap import __version__, kernels
from softmap.console import as_plain
from softmap.errors import ParameterError
from softmap.escaping import json_text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from softmap.kernels import Report

PACKAGES = {"torch": "torch", "NumPy": "numpy", "transformers": "transformers"}
BUILD = "SOFTMAP_BUILD=required pip install --force-reinstall --no-deps ."
HOW_TO_BUILD = f"To build it, install GCC or Clang and run this in a clone of softmap; it says what fails:\n{BUILD}"
MARK = "▸ "


@dataclass(frozen=True)
class Info:
    """What softmap runs on.

    Attributes:
        softmap: its version.
        python: Python's version.
        packages: the versions of what it computes with, by name; None for one that is not installed.
        threads: how many threads torch, and with it the compiled kernel, takes.
        machine: the kind of processor, as in "x86_64".
        instructions: its instruction sets for which there is a compiled kernel, the fastest first.
        kernels: every kernel by the name that SOFTMAP_KERNEL takes, the fastest first.
        first: the kernel that is tried first; None where SOFTMAP_KERNEL asks for what is not there.
        forced: what SOFTMAP_KERNEL is set to, or None.
        problem: what is wrong with it, or None.
    """

    softmap: str
    python: str
    packages: dict[str, str | None]
    threads: int
    machine: str
    instructions: tuple[str, ...]
    kernels: tuple[Report, ...]
    first: str | None
    forced: str | None
    problem: str | None

    def json(self) -> str:
        """One JSON object, with the attributes' names."""
        data = asdict(self) | {"kernels": [each._asdict() for each in self.kernels]}
        return json_text(data, indent=2)

    def __str__(self) -> str:
        return as_plain(self, 80)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Text(f"softmap {self.softmap}\n", style="bold")
        yield _indented(self._machine())
        yield Text("\nKernels, the fastest first\n", style="bold")
        yield self._kernels()
        for sentence in self._sentences():
            yield Text()
            yield _indented(sentence)

    def _machine(self) -> Table:
        table = _table()
        table.add_row("Python", self.python)
        for name, number in self.packages.items():
            threads = f", {self.threads} thread{'' if self.threads == 1 else 's'}" if name == "torch" else ""
            table.add_row(name, f"{number}{threads}" if number else "not installed")
        table.add_row("processor", ", ".join([self.machine or "unknown", *self.instructions]))
        return table

    def _kernels(self) -> Table:
        table, said = _table(), ""
        for each in self.kernels:
            remark, said = "" if each.remark == said else each.remark, each.remark  # the same reason is said once
            mark, style = (MARK, "bold") if each.name == self.first else (" " * len(MARK), "")
            usable = Text("usable", style="green") if each.usable else Text("not usable", style="red")
            table.add_row(Text(mark + each.name, style=style), usable, Text(remark, style="dim"))
        return table

    def _sentences(self) -> Iterator[Text]:
        if self.first and self.forced:
            yield Text(f"{self.first} alone is used: {kernels.VARIABLE}={self.forced} forces it.")
        elif self.first:
            others = "" if self.first == "strips" else " What it can't serve goes to strips, and the summary says so."
            yield Text(f"{self.first} is used.{others}")
        if not any(each.usable for each in self.kernels if each.name.startswith("fused")):
            yield Text(HOW_TO_BUILD)


def look() -> Info:
    """Look around; nothing of transformers is imported."""
    machine, reports = platform.machine(), tuple(kernels.report())
    first, problem = None, None
    try:
        first = kernels.first_choice()
    except ParameterError as error:
        problem = str(error)
    return Info(
        softmap=__version__,
        python=platform.python_version(),
        packages={name: _version(package) for name, package in PACKAGES.items()},
        threads=torch.get_num_threads(),
        machine=machine,
        instructions=_instructions(machine, reports),
        kernels=reports,
        first=first,
        forced=os.environ.get(kernels.VARIABLE) or None,
        problem=problem,
    )


def _instructions(machine: str, reports: tuple[Report, ...]) -> tuple[str, ...]:
    """As the compiled kernel finds them and as torch does, from which ATEN_CPU_CAPABILITY may hide some."""
    usable = {each.name for each in reports if each.usable}
    widest = torch.backends.cpu.get_cpu_capability()
    found = {
        "AVX-512": "fused-avx512" in usable or widest == "AVX512",
        "AVX2": "fused-avx2" in usable or widest in ("AVX512", "AVX2"),
        "SSE2": machine.lower() in ("x86_64", "amd64"),
        "NEON": machine.lower() in ("aarch64", "arm64"),
    }
    return tuple(name for name in found if found[name])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _table() -> Table:
    return Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)


def _indented(content: RenderableType) -> Padding:
    return Padding(content, (0, 0, 0, 2))
