"""The errors' form, and what `import softmap` brings along."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from types import ModuleType

import pytest

import softmap
from softmap import errors

CHILDREN = {
    errors.ArrayKindError: TypeError,
    errors.DtypeError: TypeError,
    errors.ShapeError: ValueError,
    errors.NonFiniteError: ValueError,
    errors.ParameterError: ValueError,
    errors.TileError: IndexError,
    errors.SizeError: MemoryError,
    errors.TextError: ValueError,
    errors.RowError: LookupError,
    errors.ModelError: RuntimeError,
    errors.RecordingError: RuntimeError,
}
PARTS = ("x", "2 dimensions (tokens, d_model)", "shape (3,)", "Add one: x[None, :].")


def test_every_error_of_the_module_is_in_these_tests():
    found = {value for value in vars(errors).values() if isinstance(value, type)}
    assert found == {errors.SoftmapError, *CHILDREN}


@pytest.mark.parametrize("kind", [errors.SoftmapError, *CHILDREN])
class TestEveryError:
    def test_message_says_what_was_expected_what_came_and_what_to_do(self, kind):
        message = "x: expected 2 dimensions (tokens, d_model), got shape (3,). Add one: x[None, :]."
        assert str(kind(*PARTS)) == message

    def test_parts_are_readable(self, kind):
        error = kind(*PARTS)
        assert (error.subject, error.expected, error.got, error.hint) == PARTS

    def test_survives_pickling(self, kind):
        error = pickle.loads(pickle.dumps(kind(*PARTS)))
        assert type(error) is kind
        assert str(error) == str(kind(*PARTS))
        assert (error.subject, error.expected, error.got, error.hint) == PARTS


@pytest.mark.parametrize(("kind", "builtin"), CHILDREN.items())
def test_every_error_is_caught_as_softmap_error_and_as_its_builtin(kind, builtin):
    for caught in (softmap.SoftmapError, builtin):
        with pytest.raises(caught, match="got shape"):
            raise kind(*PARTS)


# The package's face


def test_public_names_are_few_and_each_is_there():
    found = {name: getattr(softmap, name) for name in softmap.__all__}
    modules = {name for name, value in found.items() if isinstance(value, ModuleType)}
    assert modules == {"biases", "masks", "models"}
    assert len(found) - len(modules) <= 10


def test_dir_lists_the_public_names():
    assert set(dir(softmap)) == {*softmap.__all__, "__version__"}


def test_an_unknown_name_lists_the_public_ones():
    with pytest.raises(AttributeError, match="no attribute 'attend'") as caught:
        _ = softmap.attend
    assert str(caught.value).endswith(", ".join(softmap.__all__))


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after `code`."""
    show = "import json, sys; print(json.dumps([name for name in sys.modules if '.' not in name]))"
    ran = subprocess.run([sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True)
    return set(json.loads(ran.stdout))


def test_import_brings_nothing_heavy():
    loaded = loaded_by("import softmap")
    assert "softmap" in loaded
    assert not loaded & {"torch", "transformers", "numpy", "matplotlib", "rich", "jinja2", "click", "array_api_compat"}


def test_the_mechanism_on_numpy_arrays_needs_no_torch():
    loaded = loaded_by("import softmap; softmap.self_attention(*softmap.example(), causal=True)")
    assert "numpy" in loaded
    assert not loaded & {"torch", "transformers", "matplotlib", "rich"}
