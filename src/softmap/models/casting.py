"""torch's settings around a model's run: what attention computes in under autocast, and softmap's sums out of their reach."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from softmap.models.attending import Call


def cast_dtype(device: str) -> torch.dtype | None:
    """The dtype that autocast has products computed in on such a device; None where it is off."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def as_cast(call: Call) -> Call:
    """A call with q, k and v as the model's own products take them under autocast, which leaves float64 as it is."""
    dtype = cast_dtype(call.q.device.type)
    if dtype is None:
        return call

    def cast(x: Tensor) -> Tensor:
        return x if x.dtype == torch.float64 else x.to(dtype)

    return replace(call, q=cast(call.q), k=cast(call.k), v=cast(call.v))


@contextlib.contextmanager
def undisturbed(device: str) -> Iterator[None]:
    """Compute in the dtypes that are there, on this device; what is made new is made on the CPU, unless it says where."""
    with contextlib.ExitStack() as stack:
        for kind in {"cpu", device}:
            if cast_dtype(kind) is not None:
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
