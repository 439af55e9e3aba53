"""Attention that torch would have to trace, for gradients or for torch.func: refused, since softmap's kernels can't be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch._C._functorch import is_batchedtensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

from softmap.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from softmap.models.attending import Call

HINT = (
    "Run the model under torch.no_grad(); where you need gradients, run it outside of a recording, with another "
    "attention function."
)


def refuse_gradients(call: Call, name: str) -> None:
    """Refuse a call whose output would belong to a graph: only its values may need gradients, or only its sinks.

    Args:
        call: the arguments of the attention function.
        name: the model and the layer, as the error names them.

    Raises:
        ModelError: gradients are on, and something that the call is given needs them; a run inside torch.func.vmap, or
            under torch.export, whose tensors have no numbers.
    """
    if is_batchedtensor(call.q):
        hint = "Give the model a batch: each of its sequences is recorded."
        raise ModelError(name, "a run of the model by itself", "one inside torch.func.vmap", hint)
    if torch.compiler.is_exporting() or isinstance(call.q, FakeTensor):
        hint = "Export or trace the model outside of a recording; record a run of it on inputs with numbers."
        raise ModelError(name, "a run with numbers", "one that only traces what is computed", hint)
    if torch.is_grad_enabled():
        needing = [argument for argument, tensor in _tensors(call) if tensor.requires_grad]
        if needing:
            raise ModelError(name, "a run without gradients", f"one that needs them of {', '.join(needing)}", HINT)
    moved = [argument for argument, tensor in _tensors(call) if _has_tangent(tensor)]
    if moved:
        raise ModelError(name, "a run without gradients", f"one with tangents of {', '.join(moved)}", HINT)


def _tensors(call: Call) -> Iterator[tuple[str, Tensor]]:
    """What a call is given, by name."""
    given = {"q": call.q, "k": call.k, "v": call.v, "mask": call.mask, **call.options}
    return ((argument, value) for argument, value in given.items() if isinstance(value, torch.Tensor))


def _has_tangent(tensor: Tensor) -> bool:
    """Whether forward differentiation is at work on it, which torch.no_grad does not turn off."""
    return forward_ad.unpack_dual(tensor).tangent is not None
