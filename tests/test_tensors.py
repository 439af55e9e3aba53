"""Arrays in without a copy, out in the kind that came, and what is refused."""

from __future__ import annotations

import pickle

import array_api_strict
import numpy as np
import pytest
import torch

from softmap import tensors
from softmap.errors import ArrayKindError, DtypeError, NonFiniteError

INFINITY = float("inf")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool", "complex64"])
@pytest.mark.parametrize("writeable", [True, False])
def test_numpy_memory_is_shared(dtype, writeable):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    array.flags.writeable = writeable
    for view in (array, array[1:], array[:, ::2], array.T):
        tensor = tensors.read_tensor("x", view)
        assert tensor.data_ptr() == view.ctypes.data
        np.testing.assert_array_equal(tensor, view)


def test_numpy_memory_lives_as_long_as_the_tensor():
    array = np.full(100_000, 7.0)
    array.flags.writeable = False
    tensor = tensors.read_tensor("x", array)
    del array
    np.full(100_000, 1.0)
    assert (tensor == 7).all()


def test_repeated_numpy_memory_is_not_written_out():
    array = np.broadcast_to(np.float32(3), (1000, 1000))
    assert tensors.read_tensor("x", array).untyped_storage().nbytes() < 100


ODD = np.frombuffer(b"\0" + np.arange(3, dtype="f4").tobytes(), np.uint8)[1:].view("f4")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0)[::-1],
        np.arange(6.0).reshape(2, 3)[:, ::-1],
        np.arange(6).astype(">f8"),
        np.arange(6).astype(">f2"),
        ODD,
        np.ones(3, dtype=[("a", "i1"), ("b", "f4")])["b"],
        np.zeros((0, 3)),
        np.float32(2),
    ],
    ids=["reversed", "columns reversed", "big-endian", "big-endian half", "odd address", "a field", "empty", "scalar"],
)
@pytest.mark.parametrize("writeable", [True, False])
def test_numpy_memory_that_torch_cannot_hold_is_copied(array, writeable):
    if isinstance(array, np.ndarray):
        array = array.view()
        array.flags.writeable = writeable and array.flags.writeable
    tensor = tensors.read_tensor("x", array)
    np.testing.assert_array_equal(tensor, array)
    assert tensor.shape == array.shape


def test_torch_memory_is_shared_and_gradients_are_left_behind():
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    tensor = tensors.read_tensor("x", parameter.T)
    assert tensor.data_ptr() == parameter.data_ptr()
    assert not tensor.requires_grad
    assert type(tensor) is torch.Tensor
    assert parameter.requires_grad


def test_a_sign_bit_beside_the_memory_is_resolved():
    imaginary = torch.tensor([1 + 2j]).conj().imag
    assert imaginary.is_neg()
    tensor = tensors.read_tensor("x", imaginary)
    assert not tensor.is_neg()
    assert tensor.tolist() == [-2]


def test_dlpack_memory_is_shared():
    array = np.arange(6, dtype="f4").reshape(2, 3)
    tensor = tensors.read_tensor("x", array_api_strict.asarray(array, copy=False))
    assert tensor.data_ptr() == array.ctypes.data
    np.testing.assert_array_equal(tensor, array)


def test_an_object_with_only_an_array_interface_is_read():
    class Holder:
        def __array__(self, dtype=None, copy=None):
            return np.arange(3.0)

    assert tensors.read_tensor("x", Holder()).tolist() == [0, 1, 2]
    assert isinstance(tensors.giver(Holder())(torch.ones(1)), np.ndarray)


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise OSError("the file is gone")


REFUSED = {
    "list": ([1.0], r"builtins\.list\. Convert it first: numpy\.asarray\(x\)\."),
    "number": (1.0, r"builtins\.float"),
    "None": (None, r"builtins\.NoneType"),
    "text": (np.array(["a"]), "torch can read, got numpy.ndarray. Its conversion failed"),
    "objects": (np.array([None]), "torch can read"),
    "long double": (np.ones(2, np.longdouble), "torch can read"),
    "masked": (np.ma.masked_equal([1.0, 2.0], 2.0), r"without a mask.*x\.filled\(0\).*mask="),
    "sparse": (torch.ones(2).to_sparse(), r"layout torch\.sparse_coo\. .*x\.to_dense\(\)"),
    "meta": (torch.ones(2, device="meta"), "numbers in it, got one on the meta device.*loaded"),
    "broken": (Broken(), "the file is gone"),
}


@pytest.mark.parametrize(("value", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_dense_array_is_refused(value, message):
    with pytest.raises(ArrayKindError, match=message):
        tensors.read_tensor("x", value)


@pytest.mark.filterwarnings("ignore")  # torch warns of both kinds
def test_quantized_and_nested_tensors_are_refused():
    with pytest.raises(ArrayKindError, match=r"x: .* quantized one, torch\.qint8\. .*x\.dequantize\(\)"):
        tensors.read_tensor("x", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))
    with pytest.raises(ArrayKindError, match=r"nested one\. .*x\.unbind\(\)\[0\]"):
        tensors.read_tensor("x", torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))


@pytest.mark.parametrize("dtype", tensors.FLOATS)
def test_floats_are_taken(dtype):
    assert tensors.read_floats("x", torch.ones(2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2, dtype=torch.int64), r"got int64\. Convert it, as in x\.float\(\) in torch"),
        (np.ones(2, bool), r"got bool\. .*x\.astype\(float\) in NumPy"),
        (np.ones(2, complex), r"got complex128\. Take its real part: x\.real"),
        (torch.ones(2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
    ],
)
def test_other_numbers_than_floats_are_refused(value, message):
    with pytest.raises(DtypeError, match=message):
        tensors.read_floats("x", value)


@pytest.mark.parametrize(
    ("shape", "place"), [((5,), (3,)), ((3, 4), (2, 0)), ((2, 3, 4), (1, 0, 3)), ((), ()), ((1, 4096, 3), (0, 4095, 1))]
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", tensors.FLOATS)
def test_the_first_that_is_not_finite_is_named(shape, place, value, dtype):
    tensor = torch.zeros(shape, dtype=dtype)
    tensors.refuse_non_finite("x", tensor)
    tensor[place] = value
    if shape:
        tensor.reshape(-1)[-1] = tensor[place]  # a later one is not told of
    told = ", ".join(map(str, place))
    with pytest.raises(NonFiniteError) as raised:
        tensors.refuse_non_finite("x", tensor)
    assert raised.value.got == f"{value} at x[{told}]"
    assert 'nan="propagate"' in raised.value.hint


def test_the_place_is_that_in_the_tensor_not_in_memory():
    tensor = torch.zeros(2, 3)
    tensor[0, 2] = np.nan
    with pytest.raises(NonFiniteError, match=r"nan at x\[2, 0\]"):
        tensors.refuse_non_finite("x", tensor.T)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([-3, 2], 3), ([1, 2], 2), ([0], 0), ([-np.inf, 1], INFINITY), ([np.nan, 1], INFINITY), ([1, np.nan], INFINITY)],
)
@pytest.mark.parametrize("dtype", tensors.FLOATS)
def test_the_largest_is_a_magnitude(values, expected, dtype):
    assert tensors.largest(torch.tensor(values, dtype=dtype)) == expected


def test_the_largest_of_nothing_is_zero():
    assert tensors.largest(torch.zeros(3, 0)) == 0
    tensors.refuse_non_finite("x", torch.zeros(0))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.ones(2, "f4"), np.ndarray),
        (np.float32(1), np.ndarray),
        (torch.ones(2), torch.Tensor),
        (array_api_strict.asarray([1.0]), type(array_api_strict.asarray([1.0]))),
    ],
    ids=["numpy", "numpy scalar", "torch", "strict"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_results_are_given_back_in_the_kind_that_came(value, kind, dtype):
    result = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    given = tensors.giver(value)(result)
    assert isinstance(given, kind)
    assert tensors.read_tensor("given", given).data_ptr() == result.data_ptr()
    assert tensors.read_tensor("given", given).dtype == dtype


@pytest.mark.parametrize("value", [np.ones(2), torch.ones(2), array_api_strict.asarray([1.0])])
def test_what_gives_results_back_can_be_pickled(value):
    give = pickle.loads(pickle.dumps(tensors.giver(value)))
    assert type(give(torch.ones(2))) is type(value)
