"""The package as pip builds it without the compiled kernel, and when that is an error."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import softmap

ROOT = Path(__file__).parent.parent
NO_COMPILER = {**os.environ, "CXX": "/nonexistent/c++"}
NO_COMPILER.pop("SOFTMAP_BUILD", None)


@pytest.fixture
def source(tmp_path):
    """A copy of what a build reads, so that the project's own build folder stays as it is."""
    pytest.importorskip("scikit_build_core", reason="it is what `make` builds with")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source


def pip(*arguments, env=NO_COMPILER):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def build(source, wheels, env=NO_COMPILER):
    return pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source), env=env)


def python(place, *arguments):
    """What Python prints with the package at that place; -S, or this environment's own install is found first."""
    paths = os.pathsep.join([str(place), sysconfig.get_path("purelib")])
    command = [sys.executable, "-S", *arguments]
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
def test_without_a_compiler_the_package_is_python_alone_and_works(source, tmp_path):
    built = build(source, tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name == f"softmap-{softmap.__version__}-py3-none-any.whl"

    place = tmp_path / "place"
    installed = pip("install", "--no-deps", "--target", str(place), str(wheel))
    assert installed.returncode == 0, installed.stderr
    assert not [path.name for path in place.rglob("*") if path.suffix in {".so", ".cpp", ".h"}]
    assert (place / "softmap/data/example.json").is_file()
    assert (place / "softmap/render/static/story.html").is_file()

    assert softmap.__version__ in python(place, "-m", "softmap", "--version")
    say = "import softmap.kernels.fused as fused; print(fused.__file__, fused.available(), fused.missing(), sep='\\n')"
    file, available, missing = python(place, "-c", say).splitlines()
    assert Path(file).is_relative_to(place)
    assert available == "()"
    assert missing


@pytest.mark.slow
def test_pure_leaves_the_kernel_out_though_a_compiler_is_there(source, tmp_path, compiler):
    built = build(source, tmp_path, env={**os.environ, "CXX": compiler, "SOFTMAP_BUILD": "pure"})
    assert built.returncode == 0, built.stdout + built.stderr
    assert [wheel.name for wheel in tmp_path.glob("*.whl")] == [f"softmap-{softmap.__version__}-py3-none-any.whl"]


@pytest.mark.slow
def test_required_makes_a_failed_build_an_error(source, tmp_path):
    built = build(source, tmp_path, env=NO_COMPILER | {"SOFTMAP_BUILD": "required"})
    assert built.returncode != 0
    assert "/nonexistent/c++" in built.stdout + built.stderr
    assert not list(tmp_path.glob("*.whl"))


@pytest.mark.slow
def test_an_unknown_word_in_softmap_build_is_refused(source, tmp_path):
    built = build(source, tmp_path, env=NO_COMPILER | {"SOFTMAP_BUILD": "none"})
    assert built.returncode != 0
    assert "SOFTMAP_BUILD is neither 'pure' nor 'required'" in built.stdout + built.stderr
