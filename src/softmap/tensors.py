"""Any array in as a torch tensor that shares its memory, and results back in the kind that came.

The engine speaks torch. Whatever has ``__dlpack__`` (NumPy, JAX, CuPy and others, https://dmlc.github.io/dlpack) is
seen through it without a copy, and what comes out goes back the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import array_api_compat as compat
import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from softmap.errors import ArrayKindError, DtypeError, NonFiniteError

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
HALVES = (torch.float16, torch.bfloat16)


def read_tensor(name: str, value: Any) -> torch.Tensor:
    """See an array as a torch tensor, without a copy where its memory allows.

    Raises:
        ArrayKindError: something that is not a dense array.
    """
    if isinstance(value, torch.Tensor):
        _check_dense(name, value)
        return value.detach().resolve_neg()  # what is read by address has no sign bit beside it
    if isinstance(value, np.ma.MaskedArray):
        hint = f"Fill the gaps first, as in {name}.filled(0); what may not be seen goes into mask=."
        raise ArrayKindError(name, "an array without a mask", type(value).__qualname__, hint)
    try:
        if isinstance(value, np.ndarray | np.generic):
            return _see_numpy(np.asarray(value))
        if hasattr(value, "__dlpack__"):
            return from_dlpack(value)
        if hasattr(value, "__array__"):
            return _see_numpy(np.asarray(value))
    except Exception as error:
        hint = f"Its conversion failed ({error}); convert {name} to a NumPy array or a torch tensor first."
        raise ArrayKindError(name, "an array that torch can read", _kind(value), hint) from error
    raise ArrayKindError(
        name,
        "a torch tensor, a NumPy array, or an object with __dlpack__ or __array__",
        _kind(value),
        f"Convert it first: numpy.asarray({name}).",
    )


def read_floats(name: str, value: Any) -> torch.Tensor:
    """As `read_tensor`, for float16, bfloat16, float32 or float64.

    Raises:
        ArrayKindError: something that is not a dense array.
        DtypeError: another dtype.
    """
    tensor = read_tensor(name, value)
    if tensor.dtype not in FLOATS:
        hint = (
            f"Take its real part: {name}.real."
            if tensor.dtype.is_complex
            else f"Convert it, as in {name}.float() in torch or {name}.astype(float) in NumPy."
        )
        raise DtypeError(name, "float16, bfloat16, float32 or float64", str(tensor.dtype).removeprefix("torch."), hint)
    return tensor


def refuse_non_finite(name: str, tensor: torch.Tensor, way_out: str = 'nan="propagate" lets it through.') -> None:
    """Refuse NaN and infinity.

    Args:
        name: what the tensor is called in the error.
        tensor: any shape.
        way_out: how the error's hint ends.

    Raises:
        NonFiniteError: with the position of the first.
    """
    if largest(tensor) < math.inf:
        return
    broken = (~torch.isfinite(tensor)).reshape(-1)
    flat = int(broken.to(torch.uint8).argmax())
    position = ", ".join(str(int(i)) for i in np.unravel_index(flat, tuple(tensor.shape)))
    raise NonFiniteError(
        name,
        "finite numbers",
        f"{float(tensor.reshape(-1)[flat])} at {name}[{position}]",
        f"It is the first one; look at how that number was made. {way_out}".rstrip(),
    )


def largest(tensor: torch.Tensor) -> float:
    """The largest magnitude; infinity where there is NaN or infinity, 0 where there is nothing."""
    if tensor.numel() == 0:
        return 0.0
    # NumPy looks on this thread alone: torch would wake its own, which then spin for some milliseconds beside the
    # kernel's.
    numbers = (
        tensor.numpy() if tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64) else tensor
    )
    if tensor.device.type == "cpu" and tensor.dtype in HALVES:  # without its sign, a half's bits are ordered as it is
        bits = int((tensor.view(torch.int16).numpy() & 0x7FFF).max())
        numbers = torch.tensor(bits, dtype=torch.int16).view(tensor.dtype)
    low, high = float(numbers.min()), float(numbers.max())  # both NaN where one number is
    return math.inf if math.isnan(low) else max(-low, high)


def joint_shape(*tensors: torch.Tensor) -> tuple[int, ...]:
    """The shape that tensors broadcast to. NumPy knows; torch would first import its compiler, for most of a second.

    Raises:
        ValueError: tensors that do not broadcast.
    """
    return np.broadcast_shapes(*(tuple(tensor.shape) for tensor in tensors))


def giver(value: Any) -> Callable[[torch.Tensor], Any]:
    """What turns a torch tensor into an array of the library that `value` is of; it can be pickled."""
    if isinstance(value, torch.Tensor):
        return _as_it_is
    if compat.is_array_api_obj(value) and not isinstance(value, np.ndarray | np.generic):
        namespace = compat.array_namespace(value)
        if hasattr(namespace, "from_dlpack"):
            give: Callable[[torch.Tensor], Any] = namespace.from_dlpack
            return give
    return _as_numpy


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _as_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.numpy(force=True)
    return array


def _check_dense(name: str, tensor: torch.Tensor) -> None:
    if tensor.is_meta:
        hint = "Only its shape is there: give the tensor of a model that is loaded."
        raise ArrayKindError(name, "a tensor with numbers in it", "one on the meta device", hint)
    if tensor.is_quantized:
        hint = f"Convert it first: {name}.dequantize()."
        raise ArrayKindError(name, "a dense tensor", f"a quantized one, {tensor.dtype}", hint)
    if tensor.is_nested:
        hint = f"One sequence at a time: {name}.unbind()[0]."
        raise ArrayKindError(name, "a dense tensor", "a nested one", hint)
    if tensor.layout != torch.strided:
        hint = f"Convert it first: {name}.to_dense()."
        raise ArrayKindError(name, "a dense tensor", f"one of layout {tensor.layout}", hint)


def _see_numpy(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor on the array's memory; what torch cannot hold a view of is copied.

    That is a foreign byte order, a negative stride, and numbers at odd addresses.
    """
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.aligned or any(stride < 0 for stride in array.strides):
        array = array.copy()
    if not array.flags.writeable:  # torch warns of read-only memory; nothing here ever writes to it
        interface = array.__array_interface__ | {"data": (array.__array_interface__["data"][0], False)}
        holder = type("_View", (), {"__array_interface__": interface, "owner": array})()
        array = np.asarray(holder)
    return torch.from_numpy(array)


def _kind(value: Any) -> str:
    return f"{type(value).__module__.partition('.')[0]}.{type(value).__qualname__}"
