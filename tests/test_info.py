"""What `softmap info` says of the machine and of the kernels, and what it does where something is wrong."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

import softmap
from softmap import info, kernels
from softmap.cli import main
from softmap.errors import ParameterError
from softmap.kernels import fused

NAMES = ["fused-avx512", "fused-avx2", "fused-baseline", "strips", "gpu", "reference"]


@pytest.fixture(autouse=True)
def _no_kernel_is_forced(monkeypatch):
    monkeypatch.delenv(kernels.VARIABLE, raising=False)


@pytest.fixture
def compiled(monkeypatch):
    """A compiled kernel without AVX-512."""
    monkeypatch.setattr(fused, "available", lambda: ("avx2", "baseline"))


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(fused, "available", tuple)
    monkeypatch.setattr(fused, "missing", lambda: "the compiled kernel is not built")


def run(*arguments):
    return CliRunner().invoke(main, ["info", *arguments])


def test_versions_threads_and_processor_are_those_of_this_process():
    found = info.look()
    assert found.softmap == softmap.__version__
    assert found.python == platform.python_version()
    assert torch.__version__.startswith(found.packages["torch"])  # a wheel may leave out for which CUDA it is
    assert found.threads == torch.get_num_threads()
    assert found.machine == platform.machine()


def test_page_names_every_version_and_every_kernel():
    result = run()
    assert (result.exit_code, result.stderr) == (0, "")
    found = info.look()
    for word in (found.python, *found.packages, *found.packages.values(), *found.instructions, *NAMES):
        assert word in result.stdout


def test_json_has_what_the_page_has():
    data = json.loads(run("--json").stdout)
    assert [each["name"] for each in data["kernels"]] == NAMES
    assert data["first"] in NAMES
    assert data["forced"] is None
    assert data["problem"] is None


@pytest.mark.usefixtures("compiled")
def test_the_fastest_kernel_is_marked_and_a_missing_one_says_why():
    lines = run().stdout.splitlines()
    assert next(line.split() for line in lines if line.startswith("▸")) == ["▸", "fused-avx2", "usable"]
    assert any("fused-avx512" in line and "not usable" in line and "does not have it" in line for line in lines)
    assert info.HOW_TO_BUILD not in run().stdout


@pytest.mark.usefixtures("uncompiled")
def test_without_the_compiled_kernel_the_page_says_so_and_how_to_build_it():
    told = run().stdout
    assert sum("not usable" in line for line in told.splitlines() if "fused-" in line) == 3
    assert told.count("the compiled kernel is not built") == 1
    assert info.BUILD in told
    assert "strips is used." in told


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("forced", "first"), [("fused", "fused-avx2"), ("fused-baseline", "fused-baseline"), ("reference", "reference")]
)
def test_a_forced_kernel_is_marked_and_the_page_says_what_forces_it(monkeypatch, forced, first):
    monkeypatch.setenv(kernels.VARIABLE, forced)
    result = run()
    assert result.exit_code == 0
    assert f"▸ {first}" in result.stdout
    assert f"{first} alone is used: SOFTMAP_KERNEL={forced} forces it." in result.stdout


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("forced", "message"),
    [
        ("quick", "SOFTMAP_KERNEL: expected one of fused, fused-avx512, fused-avx2, fused-baseline, strips, gpu, reference, "
                  "got 'quick'. Unset it to let softmap choose."),
        ("fused-avx512", "got fused-avx512: this build or this processor has avx2, baseline only. Unset it"),
    ],
)  # fmt: skip
def test_a_kernel_that_is_not_there_is_an_error_after_all_the_rest(monkeypatch, forced, message):
    monkeypatch.setenv(kernels.VARIABLE, forced)
    page, data = run(), run("--json")
    assert page.exit_code == data.exit_code == 1
    assert message in page.stderr
    assert message in json.loads(data.stdout)["problem"]
    assert all(name in page.stdout for name in NAMES)
    assert "▸" not in page.stdout


@pytest.mark.usefixtures("uncompiled")
def test_what_is_tried_first_is_what_a_sweep_would_try(monkeypatch):
    assert kernels.first_choice() == "strips"
    monkeypatch.setenv(kernels.VARIABLE, "fused")
    with pytest.raises(ParameterError, match="got fused: the compiled kernel is not built"):
        kernels.first_choice()


def test_a_package_that_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(info, "PACKAGES", {"torch": "torch", "Other": "no-such-package-here"})
    assert info.look().packages["Other"] is None
    assert "Other      not installed" in run().stdout


@pytest.mark.parametrize(
    ("machine", "widest", "usable", "expected"),
    [
        ("x86_64", "AVX512", (), ("AVX-512", "AVX2", "SSE2")),
        ("AMD64", "AVX2", (), ("AVX2", "SSE2")),
        ("x86_64", "DEFAULT", ("avx2", "baseline"), ("AVX2", "SSE2")),
        ("aarch64", "DEFAULT", ("baseline",), ("NEON",)),
        ("riscv64", "DEFAULT", (), ()),
    ],
)
def test_instruction_sets_are_those_that_a_kernel_or_torch_finds(monkeypatch, machine, widest, usable, expected):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: widest)
    monkeypatch.setattr(fused, "available", lambda: usable)
    assert info.look().instructions == expected


def test_no_line_is_wider_than_the_terminal_and_colours_say_what_is_usable():
    file = io.StringIO()
    Console(file=file, width=60, force_terminal=True, color_system="truecolor", legacy_windows=False).print(info.look())
    assert "\x1b[32musable" in file.getvalue()
    plain = io.StringIO()
    Console(file=plain, width=60, legacy_windows=False).print(info.look())
    assert max(len(line) for line in plain.getvalue().splitlines()) <= 60


def test_piped_page_has_neither_escape_codes_nor_trailing_blanks():
    told = str(info.look())
    assert "\x1b" not in told
    assert all(line == line.rstrip() for line in told.splitlines())


def test_transformers_is_not_imported():
    code = (
        "import sys\nfrom softmap.cli import main\n"
        "try: main(['info'])\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'transformers', 'matplotlib', 'jinja2'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
