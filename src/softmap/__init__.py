"""softmap shows which token attends to which: the self-attention mechanism in full view, at any length.

The public names are loaded when first used, so that ``import softmap`` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "self_attention": "softmap.mechanism",
    "Steps": "softmap.mechanism",
    "AttentionMatrix": "softmap.matrix",
    "example": "softmap.worked_example",
    "explain": "softmap.story",
    "heads": "softmap.roles",
    "load": "softmap.recorded.storage",
    "record": "softmap.models.record",
    "recording": "softmap.models.record",
    "SoftmapError": "softmap.errors",
}
_MODULES = ("biases", "masks", "models")
__all__ = [
    "AttentionMatrix",
    "SoftmapError",
    "Steps",
    "biases",
    "example",
    "explain",
    "heads",
    "load",
    "masks",
    "models",
    "record",
    "recording",
    "self_attention",
]

if TYPE_CHECKING:
    from softmap import biases, masks, models
    from softmap.errors import SoftmapError
    from softmap.matrix import AttentionMatrix
    from softmap.mechanism import Steps, self_attention
    from softmap.models.record import record, recording
    from softmap.recorded.storage import load
    from softmap.roles import heads
    from softmap.story import explain
    from softmap.worked_example import example


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"softmap.{name}")
    raise AttributeError(f"module 'softmap' has no attribute {name!r}; its public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
