"""Models whose weights accelerate's hooks bring to a device when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def device_of(model: PreTrainedModel) -> torch.device:
    """Where a model takes its inputs: weights on no device, as they are between runs, are brought to one by a hook."""
    if model.device.type != "meta":
        return model.device
    devices = (hook.execution_device for module in model.modules() for hook in _hooks_of(module))
    return next((torch.device(each) for each in devices if each is not None), torch.device("cpu"))


def _hooks_of(module: Any) -> Iterator[Any]:
    """The hooks of a module that say where it runs."""
    waiting = [getattr(module, "_hf_hook", None)]
    while waiting:
        hook = waiting.pop()
        waiting += getattr(hook, "hooks", ())
        if getattr(hook, "execution_device", None) is not None:
            yield hook
