"""Tests are marked by what they ask for, so that `make test` runs on a machine that lacks it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
ASKING = """
import pytest

def test_directly({fixture}): pass

class TestInAClass:
    def test_directly(self, {fixture}): pass

@pytest.mark.usefixtures("{fixture}")
def test_by_name(): pass

@pytest.fixture
def page({fixture}): return {fixture}

@pytest.mark.parametrize("size", [1, 2])
def test_through_another(page, size): pass

def test_that_needs_nothing(tmp_path): pass
"""
ASKED = ["test_directly", "TestInAClass::test_directly", "test_by_name"]
ASKED += ["test_through_another[1]", "test_through_another[2]"]
MARKERS = {"browser": "browser", "cuda": "gpu", "triton": "gpu", "compiler": "compiler"}
SAY = """
def pytest_deselected(items):
    for item in items:
        print("left out:", item.nodeid, *(mark.name for mark in item.iter_markers() if mark.name in {markers}))
"""


def pytest_here(folder, *arguments, **environment):
    """What pytest prints of a folder of its own, with this project's conftest.py and settings."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", *arguments]
    command += ["-c", str(TESTS.parent / "pyproject.toml"), "--rootdir", str(folder), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(folder)]), **environment}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_what_asks_for_a_fixture_has_its_marker_and_can_be_left_out(tmp_path):
    for fixture in MARKERS:
        (tmp_path / f"test_{fixture}.py").write_text(ASKING.format(fixture=fixture), encoding="utf-8")
    (tmp_path / "say.py").write_text(SAY.format(markers=set(MARKERS.values())), encoding="utf-8")
    quick = "not browser and not gpu and not compiler"
    lines = pytest_here(tmp_path, "-p", "say", "--collect-only", "-m", quick).splitlines()
    left_out = {line.removeprefix("left out: ") for line in lines if line.startswith("left out: ")}
    assert left_out == {f"test_{name}.py::{test} {marker}" for name, marker in MARKERS.items() for test in ASKED}
    assert {line for line in lines if line.startswith("test_")} == {
        f"test_{name}.py::test_that_needs_nothing" for name in MARKERS
    }


def test_without_a_compiler_a_test_that_needs_one_says_so(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(compiler): pass", encoding="utf-8")
    said = pytest_here(tmp_path, PATH=str(tmp_path), CXX="")
    assert "1 skipped" in said
    assert "needs a C++ compiler: install g++ or clang++, or name one in CXX" in said
