"""torch.autocast around a model's run: what attention computes in then, and softmap's own sums out of its reach."""

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
def without_autocast(device: str) -> Iterator[None]:
    """Compute in the dtypes that are there, on the CPU and on this device."""
    with contextlib.ExitStack() as stack:
        for kind in {"cpu", device}:
            if cast_dtype(kind) is not None:
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
