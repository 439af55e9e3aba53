"""Any array library in, the same one out; and what is refused at the door.

The mechanism is written once, against the operations that NumPy, torch, JAX, CuPy and others share
(the Python array API standard, https://data-apis.org/array-api, through ``array-api-compat``).
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat as compat
import numpy as np

from softmap.errors import ArrayKindError, DtypeError, NonFiniteError, ShapeError

Array = Any
"""A real floating-point array of any library that follows the array API standard."""


def read_arrays(*, optional: tuple[str, ...] = (), **given: Any) -> dict[str, Array]:
    """Turn every argument into an array of one library, one device and one dtype, and check it.

    Arrays of a library that follows the array API standard stay what they are. Anything else that
    has ``__dlpack__`` or ``__array__`` becomes a NumPy array. ``None`` stays ``None``. The common
    dtype is the widest one given, and at least float32.

    Raises:
        ArrayKindError: not an array; arrays of two libraries or on two devices.
        DtypeError: integers, booleans or complex numbers.
        ShapeError: an array without elements.
        NonFiniteError: NaN or infinity, with the position of the first.
    """
    arrays = {
        name: _as_array(name, value) for name, value in given.items() if value is not None or name not in optional
    }
    _refuse_mixture(arrays)
    for name, array in arrays.items():
        _refuse_unless_real(name, array)
        if 0 in array.shape:
            raise ShapeError(
                name, "at least one element", f"shape {shape(array)}", "Give at least one token and one dimension."
            )
        _refuse_non_finite(name, array)
    dtype = _common_dtype(list(arrays.values()))
    xp = compat.array_namespace(*arrays.values())
    return {name: None if given[name] is None else xp.astype(arrays[name], dtype) for name in given}


def as_numpy(value: Any) -> Any:
    """An array of any library as one of NumPy's, without what made it; anything else as it is."""
    if compat.is_torch_array(value):
        return value.numpy(force=True)
    if compat.is_cupy_array(value):
        return value.get()
    if compat.is_numpy_array(value) or not compat.is_array_api_obj(value):
        return value
    return np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)


def shape(array: Array) -> tuple[int, ...]:
    """The shape as a plain tuple: torch's own prints as ``torch.Size([3, 4])``."""
    return tuple(int(size) for size in array.shape)


def first_non_finite(array: Array) -> tuple[tuple[int, ...], float] | None:
    """Where the first NaN or infinity stands, in row order, and which of them it is."""
    xp = compat.array_namespace(array)
    broken = ~xp.isfinite(array)
    if not bool(xp.any(broken)):
        return None
    flat = int(xp.argmax(xp.reshape(xp.astype(broken, xp.int32), (-1,))))
    position = tuple(int(i) for i in np.unravel_index(flat, shape(array)))
    cell = array[position]
    value = math.nan if bool(xp.isnan(cell)) else math.inf if bool(cell > 0) else -math.inf
    return position, value


def _as_array(name: str, value: Any) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        hint = f"softmap does not read masks: fill the gaps first, as in {name}.filled(0)."
        raise ArrayKindError(name, "an array without a mask", type(value).__qualname__, hint)
    if compat.is_array_api_obj(value):
        return value
    try:
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        if hasattr(value, "__array__"):
            return np.asarray(value)
    except Exception as error:
        hint = f"Its conversion failed ({error}); convert {name} to a NumPy array or a torch tensor first."
        raise ArrayKindError(name, "an array that NumPy can read", type(value).__qualname__, hint) from error
    raise ArrayKindError(
        name,
        "a NumPy array, a torch tensor, or an object with __dlpack__ or __array__",
        type(value).__qualname__,
        f"Convert it first: numpy.asarray({name}, dtype=float).",
    )


def _refuse_mixture(arrays: dict[str, Array]) -> None:
    (first, model), *others = arrays.items()
    library = compat.array_namespace(model)
    for name, array in others:
        if compat.array_namespace(array) is not library:
            raise ArrayKindError(
                f"{first} and {name}",
                "arrays of one library",
                f"{_kind(model)} and {_kind(array)}",
                f"Convert one of them, as in numpy.asarray({name}) or torch.as_tensor({name}).",
            )
        if compat.device(array) != compat.device(model):
            raise ArrayKindError(
                f"{first} and {name}",
                "arrays on one device",
                f"{compat.device(model)} and {compat.device(array)}",
                f"Move one of them, as in {name}.to({first}.device).",
            )


def _refuse_unless_real(name: str, array: Array) -> None:
    xp = compat.array_namespace(array)
    if not xp.isdtype(array.dtype, "real floating"):
        hint = (
            f"Take its real part: {name}.real."
            if xp.isdtype(array.dtype, "complex floating")
            else f"Convert it: {name}.double() in torch, {name}.astype(float) in NumPy."
        )
        raise DtypeError(name, "a real floating-point dtype", str(array.dtype), hint)


def _refuse_non_finite(name: str, array: Array) -> None:
    try:
        found = first_non_finite(array)
    except (NotImplementedError, RuntimeError, TypeError) as error:  # sparse, 8-bit or without storage
        got = f"{_kind(array)} of {array.dtype} that can't be read ({error})".replace("\n", " ")
        raise ArrayKindError(
            name, "a dense array", got, f"Convert it first, as in {name}.to_dense().float()."
        ) from error
    if found is not None:
        position, value = found
        raise NonFiniteError(
            name,
            "finite numbers",
            f"{value} at {name}[{', '.join(map(str, position))}]",
            "It is the first one; look at how that number was made.",
        )


def _common_dtype(arrays: list[Array]) -> Any:
    """The widest dtype given, and at least float32: sums of halves lose what a softmax needs."""
    xp = compat.array_namespace(*arrays)
    return xp.result_type(xp.float32, *(array.dtype for array in arrays))


def _kind(array: Array) -> str:
    return f"{type(array).__module__.partition('.')[0]}.{type(array).__qualname__}"
