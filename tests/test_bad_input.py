"""What is refused: each error names the argument, what was expected, what came, and what to do."""

from __future__ import annotations

import re
from contextlib import contextmanager

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softmap import Steps, self_attention
from softmap.errors import ArrayKindError, DtypeError, NonFiniteError, ParameterError, ShapeError

BUILTIN = {
    ArrayKindError: TypeError,
    DtypeError: TypeError,
    ShapeError: ValueError,
    NonFiniteError: ValueError,
    ParameterError: ValueError,
}
ARGUMENTS = {"x": (3, 4), "w_q": (4, 2), "w_k": (4, 2), "w_v": (4, 5), "b_q": (2,), "b_k": (2,), "b_v": (5,)}
ones = np.ones


def head(**changes):
    """Run self_attention on a good head of ones, but for `changes`."""
    options = {name: changes.pop(name) for name in ("scale", "causal") if name in changes}
    return self_attention(**{name: ones(shape) for name, shape in ARGUMENTS.items()} | changes, **options)


@contextmanager
def refused(error, subject, expected, got, hint):
    """What runs here raises exactly `error`, catchable as its builtin; its message has the four parts in order."""
    with pytest.raises(BUILTIN[error]) as caught:
        yield
    assert type(caught.value) is error
    parts = (f"{subject}: expected ", expected, ", got ", got, ". ", hint)
    assert re.fullmatch(".*".join(map(re.escape, parts)) + ".*", str(caught.value)), str(caught.value)


def test_the_good_head_is_accepted():
    assert head().output.shape == (3, 5)


# Shapes


@pytest.mark.parametrize(
    ("name", "shape", "expected", "hint"),
    [
        ("x", (4,), "2 dimensions (tokens, d_model)", "add the missing one, as in x[None, :]"),
        ("x", (1, 3, 4), "2 dimensions (tokens, d_model)", "One head of one sequence at a time: take x[0]"),
        ("x", (2, 1, 3, 4), "2 dimensions (tokens, d_model)", "take x[0, 0]"),
        ("w_q", (4,), "2 dimensions (d_model, d_k)", "Its axes are d_model, d_k"),
        ("w_k", (2, 4, 2), "2 dimensions (d_model, d_k)", "take w_k[0]"),
        ("w_v", (5,), "2 dimensions (d_model, d_v)", "Its axes are d_model, d_v"),
        ("b_q", (1, 2), "1 dimension (d_k)", "take b_q[0]"),
        ("b_k", (2, 1), "1 dimension (d_k)", "take b_k[0]"),
        ("b_v", (), "1 dimension (d_v)", "Its axes are d_v"),
    ],
)
def test_wrong_rank_of_a_head_is_refused(name, shape, expected, hint):
    with refused(ShapeError, name, expected, f"shape {shape}", hint):
        head(**{name: ones(shape)})


@pytest.mark.parametrize(
    ("run", "subject", "expected", "got"),
    [
        (lambda: Steps.from_qkv(ones(4), ones((2, 4))), "q", "2 dimensions (queries, d_k)", "shape (4,)"),
        (lambda: Steps.from_qkv(ones((3, 4)), ones((1, 2, 4))), "k", "2 dimensions (keys, d_k)", "shape (1, 2, 4)"),
        (lambda: Steps.from_qkv(ones((3, 4)), ones((2, 4)), ones(2)), "v", "2 dimensions (keys, d_v)", "shape (2,)"),
        (lambda: Steps.from_scores(ones(3), 64), "scores", "2 dimensions (queries, keys)", "shape (3,)"),
        (lambda: Steps.from_scores(torch.ones(1, 3, 3), 64), "scores", "2 dimensions (queries, keys)", "(1, 3, 3)"),
        (lambda: Steps.from_scores(ones((3, 2)), 64, ones(2)), "v", "2 dimensions (keys, d_v)", "shape (2,)"),
    ],
)
def test_wrong_rank_of_qkv_or_scores_is_refused(run, subject, expected, got):
    with refused(ShapeError, subject, expected, got, f"{subject}["):
        run()


@pytest.mark.parametrize(
    ("changes", "subject", "axis", "sizes", "hint"),
    [
        ({"w_q": (3, 2)}, "x and w_q", "d_model", "4 and 3", "Axis 1 of x and axis 0 of w_q must have the same length"),
        ({"w_k": (5, 2)}, "x and w_k", "d_model", "4 and 5", "Axis 1 of x and axis 0 of w_k"),
        ({"w_v": (3, 5)}, "x and w_v", "d_model", "4 and 3", "Axis 1 of x and axis 0 of w_v"),
        ({"x": (3, 7)}, "x and w_q", "d_model", "7 and 4", "Axis 1 of x and axis 0 of w_q"),
        ({"w_q": (2, 4)}, "x and w_q", "d_model", "4 and 2", "w_q seems transposed (torch.nn.Linear keeps"),
        ({"w_k": (2, 4)}, "x and w_k", "d_model", "4 and 2", "give w_k.T"),
        ({"w_v": (5, 4)}, "x and w_v", "d_model", "4 and 5", "give w_v.T"),
        ({"w_k": (4, 3), "b_k": (3,)}, "w_q and w_k", "d_k", "2 and 3", "Axis 1 of w_q and axis 1 of w_k"),
        ({"b_q": (4,)}, "w_q and b_q", "d_k", "2 and 4", "Axis 1 of w_q and axis 0 of b_q"),
        ({"b_k": (1,)}, "w_k and b_k", "d_k", "2 and 1", "Axis 1 of w_k and axis 0 of b_k"),
        ({"b_v": (2,)}, "w_v and b_v", "d_v", "5 and 2", "Axis 1 of w_v and axis 0 of b_v"),
    ],
)
@pytest.mark.parametrize("make", [np.ones, torch.ones])
def test_arguments_of_a_head_that_do_not_fit_are_refused(make, changes, subject, axis, sizes, hint):
    shapes = ARGUMENTS | changes
    one, other = subject.split(" and ")
    got = f"{sizes} ({one} has shape {shapes[one]}, {other} has shape {shapes[other]})"
    given = {name: make(shape) for name, shape in shapes.items()}
    with refused(ShapeError, subject, f"the same {axis}", got, hint):
        self_attention(**given)


@pytest.mark.parametrize(
    ("run", "subject", "axis", "sizes"),
    [
        (lambda: Steps.from_qkv(ones((3, 4)), ones((2, 5))), "q and k", "d_k", "4 and 5"),
        (lambda: Steps.from_qkv(ones((3, 4)), ones((2, 4)), ones((3, 4))), "k and v", "keys", "2 and 3"),
        (lambda: Steps.from_scores(ones((3, 2)), 64, ones((3, 4))), "scores and v", "keys", "2 and 3"),
    ],
)
def test_qkv_and_scores_that_do_not_fit_are_refused(run, subject, axis, sizes):
    with refused(ShapeError, subject, f"the same {axis}", sizes, "must have the same length"):
        run()


@pytest.mark.parametrize(("name", "shape"), [("x", (0, 4)), ("x", (3, 0)), ("w_v", (4, 0)), ("b_k", (0,))])
def test_an_empty_array_is_refused(name, shape):
    with refused(ShapeError, name, "at least one element", f"shape {shape}", "Give at least one token"):
        head(**{name: ones(shape)})


@pytest.mark.parametrize(
    ("run", "got"),
    [
        (lambda: Steps.from_qkv(ones((3, 4)), ones((2, 4)), causal=True), "3 queries and 2 keys"),
        (lambda: Steps.from_scores(ones((1, 5)), 64, causal=True), "1 queries and 5 keys"),
    ],
)
def test_causal_needs_as_many_queries_as_keys(run, got):
    with refused(ShapeError, "causal=True", "as many queries as keys", got, "or leave causal out"):
        run()


# Dtypes and kinds


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda array: array.astype(np.int64), "{name}.astype(float) in NumPy"),
        (lambda array: array.astype(bool), "{name}.astype(float) in NumPy"),
        (lambda array: array.astype(object), "{name}.astype(float) in NumPy"),
        (lambda array: array.astype(np.complex128), "Take its real part: {name}.real"),
    ],
)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_numbers_that_are_not_real_floats_are_refused_in_numpy(make, hint, name):
    array = make(ones(ARGUMENTS[name]))
    with refused(DtypeError, name, "a real floating-point dtype", str(array.dtype), hint.format(name=name)):
        head(**{name: array})


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_numbers_that_are_not_real_floats_are_refused_in_torch(dtype):
    hint = "scores.real" if dtype.is_complex else "scores.double() in torch"
    with refused(DtypeError, "scores", "a real floating-point dtype", str(dtype), hint):
        Steps.from_scores(torch.ones(2, 2).to(dtype), 64)


@pytest.mark.parametrize("value", [[[1.0, 2.0]], ((1.0,),), 3.0, "text", {"a": 1}])
def test_what_is_not_an_array_is_refused(value):
    expected = "a NumPy array, a torch tensor, or an object with __dlpack__ or __array__"
    with refused(ArrayKindError, "w_k", expected, type(value).__name__, "numpy.asarray(w_k, dtype=float)"):
        head(w_k=value)


@pytest.mark.parametrize("attribute", ["__array__", "__dlpack__"])
def test_an_object_that_numpy_cannot_read_is_refused_with_the_reason(attribute):
    def refuse(self, *_, **__):
        raise RuntimeError("the numbers are elsewhere")

    remote = type("Remote", (), {attribute: refuse, "__dlpack_device__": lambda self: (1, 0)})()
    hint = "Its conversion failed (the numbers are elsewhere); convert x to a NumPy array"
    with refused(ArrayKindError, "x", "an array that NumPy can read", "Remote", hint):
        head(x=remote)


@pytest.mark.parametrize(
    ("other", "kind"),
    [(torch.ones(4, 2), "torch.Tensor"), (array_api_strict.ones((4, 2)), "array_api_strict.Array")],
)
def test_arrays_of_two_libraries_are_refused(other, kind):
    with refused(ArrayKindError, "x and w_k", "arrays of one library", f"numpy.ndarray and {kind}", "asarray(w_k)"):
        head(w_k=other)


def test_arrays_on_two_devices_are_refused():
    with refused(ArrayKindError, "q and k", "arrays on one device", "cpu and meta", "k.to(q.device)"):
        Steps.from_qkv(torch.ones(3, 4), torch.ones(3, 4, device="meta"))


# NaN, infinity and overflow


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_a_number_that_is_not_finite_is_refused_in_every_argument(name, value, make):
    arrays = {other: ones(shape) for other, shape in ARGUMENTS.items()}
    arrays[name].flat[-1] = value
    given = {other: make(array) for other, array in arrays.items()}
    last = ", ".join(str(size - 1) for size in ARGUMENTS[name])
    with refused(NonFiniteError, name, "finite numbers", f"{value} at {name}[{last}]", "It is the first one"):
        self_attention(**given)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1))
def test_the_position_of_the_first_non_finite_number_is_named(positions):
    scores = ones((4, 5))
    for position in positions:
        scores[position] = np.nan
    row, column = min(positions)
    with refused(NonFiniteError, "scores", "finite numbers", f"nan at scores[{row}, {column}]", "first"):
        Steps.from_scores(scores, 64)


HUGE = torch.full((2, 2), 1e30)
ONE = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("run", "stage"),
    [
        (lambda: self_attention(HUGE, HUGE, ONE, ONE), "q"),
        (lambda: self_attention(HUGE, ONE, HUGE, ONE), "k"),
        (lambda: self_attention(HUGE, ONE * 0, ONE * 0, HUGE), "v"),
        (lambda: self_attention(HUGE, ONE, ONE, ONE), "scores"),
        (lambda: Steps.from_qkv(HUGE, HUGE), "scores"),
        (lambda: Steps.from_scores(HUGE, 1, scale=1e30), "weights"),
    ],
)
def test_finite_input_that_overflows_is_refused_at_the_stage_where_it_does(run, stage):
    hint = "scale it down, or convert it to float64"
    with refused(NonFiniteError, stage, "numbers within the range of torch.float32", f" at {stage}[0, 0]", hint):
        run()


def test_overflow_is_refused_in_numpy_too():
    huge = np.full((2, 2), 1e30, dtype=np.float32)
    silent = np.errstate(over="ignore", invalid="ignore")  # NumPy warns besides
    with silent, refused(NonFiniteError, "scores", "the range of float32", "inf at scores[0, 0]", "float64"):
        Steps.from_qkv(huge, huge)
    assert Steps.from_qkv(huge.astype(float), huge.astype(float)).weights.tolist() == [[0.5, 0.5]] * 2


# Options


@pytest.mark.parametrize("d_k", [0, -1, -64])
def test_d_k_below_one_is_refused(d_k):
    with refused(ParameterError, "d_k", "a whole number of at least 1", str(d_k), "as in d_k=64"):
        Steps.from_scores(ones((2, 2)), d_k)


@pytest.mark.parametrize("d_k", [64.0, 0.5, "64", None, np.inf])
def test_d_k_that_is_not_a_whole_number_is_refused(d_k):
    with refused(ParameterError, "d_k", "a whole number", repr(d_k), "as in d_k=64"):
        Steps.from_scores(ones((2, 2)), d_k)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, "wide", 1j, [0.1], ones(2)])
@pytest.mark.parametrize(
    "run",
    [
        lambda scale: head(scale=scale),
        lambda scale: Steps.from_qkv(ones((3, 2)), ones((3, 2)), scale=scale),
        lambda scale: Steps.from_scores(ones((3, 3)), 2, scale=scale),
    ],
)
def test_scale_that_is_not_a_finite_number_is_refused(scale, run):
    hint = "It multiplies the scores; leave it out for 1/√d_k = 0.707107"
    with refused(ParameterError, "scale", "a finite number", repr(scale), hint):
        run(scale)


@pytest.mark.parametrize(
    ("run", "error", "subject"),
    [
        (lambda: head(x=None), ArrayKindError, "x"),
        (lambda: head(w_q=None), ArrayKindError, "w_q"),
        (lambda: head(w_v=None), ArrayKindError, "w_v"),
        (lambda: Steps.from_qkv(ones((3, 2)), None), ArrayKindError, "k"),
        (lambda: Steps.from_scores(None, 64), ArrayKindError, "scores"),
        (lambda: head(x=np.ma.masked_equal(np.eye(3, 4), 1)), ArrayKindError, "x"),
        (lambda: head(scale=10**400), ParameterError, "scale"),
    ],
)
def test_what_is_missing_masked_or_beyond_floats_is_refused(run, error, subject):
    with refused(error, subject, "", "", ""):
        run()


def test_a_narrow_w_k_is_not_called_transposed():
    with refused(ShapeError, "w_q and w_k", "the same d_k", "4 and 2", "Axis 1 of w_q and axis 1 of w_k"):
        head(w_q=ones((4, 4)), b_q=ones(4))


def test_nan_in_a_tensor_with_gradient_is_refused_without_a_warning():
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with refused(NonFiniteError, "scores", "finite numbers", "nan at scores[0, 0]", ""):
            Steps.from_scores(torch.full((2, 2), torch.nan, requires_grad=True), 64)
    finally:
        torch.set_warn_always(before)
