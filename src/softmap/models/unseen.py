"""Attention that softmap does not see, while a model runs: found where it computes a softmax, refused or listed.

1. Modules whose code names a softmax, or that are called attention, are watched; all others cost nothing.
2. While a watched module runs, torch's functions are seen (``TorchFunctionMode``): a softmax, and a product with what
   became of it. A choice of experts has the first only.
3. A module that is called attention and computes a softmax stands for a layer that would be missing: the model is
   refused. Pooling by torch's own attention, and a softmax beside the layers that are seen, such as an adapter's, is
   listed. What did not run is listed so.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from softmap.recorded import OtherLayer

if TYPE_CHECKING:
    from softmap.errors import ModelError
    from softmap.models.recorder import Recorder

ATTENTION = re.compile(r"Attention|Attn")
WHOLE = frozenset(
    [
        "scaled_dot_product_attention",
        "multi_head_attention_forward",
        "_native_multi_head_attention",
        "_transformer_encoder_layer_fwd",
    ]
)
"""Functions of torch that are attention from its scores to its output."""
OPAQUE = frozenset(
    ["flex_attention", "memory_efficient_attention", "flash_attn_func", "flash_attn_varlen_func", "XSoftmax"]
)
"""Functions that are attention, or its softmax, and no function of torch: whose code calls one is taken to compute it."""
SOFTMAXES = frozenset(["softmax", "_softmax", "_safe_softmax"])
PRODUCTS = frozenset(["matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "mm", "einsum"])
ENDS = frozenset(["topk", "sum", "mean", "max", "amax", "argmax", "sort", "argsort", "multinomial", "log", "__get__"])
"""Functions after which weights are weights no more."""
OWN = "a softmax of its own"
POOLING = "not through the interface"
STILL = "did not run"
_NAMES: weakref.WeakKeyDictionary[type[nn.Module], frozenset[str]] = weakref.WeakKeyDictionary()
DEPTH = 3
"""How many functions deep the code of a module is looked through."""


def names_softmax(kind: type[nn.Module], also: frozenset[str] = frozenset()) -> bool:
    """Whether the code of a module's class, or a function that it calls, names a softmax or attention of torch's."""
    return bool(_names_in(kind) & (SOFTMAXES | WHOLE | OPAQUE | also))


def _names_in(kind: type[nn.Module]) -> frozenset[str]:
    """The names in the code of a class and its bases, but of what it hands on to the interface."""
    if kind in _NAMES:
        return _NAMES[kind]
    found: set[str] = set()
    for base in kind.__mro__:
        if base in (object, nn.Module) or issubclass(PreTrainedModel, base):
            continue
        for method in vars(base).values():
            function = inspect.unwrap(method) if callable(method) else method
            if isinstance(function, FunctionType):
                found |= _names_of(function, DEPTH)
    _NAMES[kind] = frozenset(found)
    return _NAMES[kind]


def _names_of(function: FunctionType, depth: int) -> set[str]:
    found = set(_names(function.__code__))
    if depth:
        for name in sorted(found):
            called = function.__globals__.get(name)
            if not isinstance(called, FunctionType) or called.__module__ != function.__module__:
                continue
            if not name.endswith("eager_attention_forward"):
                found |= _names_of(called, depth - 1)
    return found


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)


class Watch:
    """What of a model ran, and which of its modules computed a softmax that softmap did not.

    Args:
        recorder: the recording.
        seen: the attention layers that go through the interface.
        beside: modules that are called attention, apart from them.
        pooling: which of those are pooling by torch's own attention.
        refuse: makes the error for a module that would be missing.
    """

    def __init__(
        self,
        recorder: Recorder,
        seen: set[nn.Module],
        beside: set[nn.Module],
        pooling: set[nn.Module],
        refuse: Callable[[nn.Module], ModelError],
    ) -> None:
        self._recorder, self._refuse = recorder, refuse
        self._seen, self._beside, self._pooling = seen, beside, pooling
        self._ran: set[nn.Module] = set()
        self._own: set[nn.Module] = set()
        self._softmaxed: set[nn.Module] = set()
        self._here = threading.local()  # how deep a thread is in watched modules
        self._mode = _Softmaxes(self)

    @contextlib.contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Watch the model's runs in the block."""

        def runs(module: nn.Module, args: Any) -> None:
            self._runs(module)

        def before(module: nn.Module, args: Any) -> None:
            self._before(module)

        def after(module: nn.Module, args: Any, output: Any) -> None:
            self._after(module, output)

        with contextlib.ExitStack() as undo:  # hooks are functions: a copy of the model that is made meanwhile has them
            undo.callback(self._leave, all_of_it=True)
            for module in model.modules():
                watched = module in self._beside or (
                    not isinstance(module, PreTrainedModel | nn.Softmax) and names_softmax(type(module))
                )
                if watched:
                    undo.callback(module.register_forward_pre_hook(before).remove)
                    undo.callback(module.register_forward_hook(after, always_call=True).remove)
                elif module in self._seen:
                    undo.callback(module.register_forward_pre_hook(runs).remove)
            yield

    def forget(self) -> None:
        """Begin anew: what ran so far is not recorded."""
        for each in (self._ran, self._own, self._softmaxed):
            each.clear()

    def others(self, paths: Mapping[nn.Module, str]) -> list[OtherLayer]:
        """What the recording does not hold of what was watched, in the model's order."""
        reasons = dict.fromkeys(self._pooling & self._ran, POOLING)
        inside = {part for module in self._pooling for part in module.modules()}
        reasons |= dict.fromkeys(self._own - inside, OWN)
        reasons |= dict.fromkeys(self._still(paths), STILL)
        return [OtherLayer(paths[m], type(m).__name__, reasons[m]) for m in paths if m in reasons]

    def _still(self, paths: Mapping[nn.Module, str]) -> Iterator[nn.Module]:
        """The largest parts of the model that have attention, none of which ran."""
        tracked = {module for module in self._seen | self._beside if names_softmax(type(module), INTERFACE)}
        tracked |= self._pooling
        ran = {paths[module] for module in self._ran}
        modules = {path: module for module, path in paths.items()}
        found: dict[str, None] = {}
        for module in paths:
            if module not in tracked or module in self._ran:
                continue
            place = paths[module]
            while "." in place and not _any_within(ran, place.rpartition(".")[0]):
                place = place.rpartition(".")[0]
            found[place] = None
        if ran:
            yield from (modules[place] for place in found if place in modules)

    def saw_softmax(self) -> nn.Module | None:
        """The innermost module that computes a softmax now; None where it is softmap's, or nobody's of the model."""
        running = list(_running(self._recorder.paths))
        self._softmaxed.update(module for module in running if module in self._beside)
        return running[0] if running else None

    def saw_attention(self, module: nn.Module | None) -> None:
        """Note that a module multiplied by a softmax of its own."""
        if module is not None and module not in self._beside:
            self._own.add(module)

    def _is_ours(self, module: nn.Module) -> bool:
        return module in self._recorder.paths and not self._recorder.turns.is_elsewhere()

    def _runs(self, module: nn.Module) -> None:
        if self._is_ours(module):
            self._ran.add(module)

    def _before(self, module: nn.Module) -> None:
        if not self._is_ours(module):
            return
        self._ran.add(module)
        self._here.depth = self._depth + 1
        if self._depth == 1:
            self._mode.__enter__()  # type: ignore[no-untyped-call]

    def _after(self, module: nn.Module, output: Any) -> None:
        if module not in self._recorder.paths:
            return
        ran = self._depth > 0
        self._leave()
        if not ran or not self._is_ours(module):
            return
        computes = module in self._softmaxed or bool(_names_in(type(module)) & OPAQUE)
        if output is not None and computes and module in self._beside - self._pooling:
            raise self._refuse(module)

    @property
    def _depth(self) -> int:
        return int(self._here.__dict__.get("depth", 0))

    def _leave(self, *, all_of_it: bool = False) -> None:
        before, self._here.depth = self._depth, 0 if all_of_it else max(0, self._depth - 1)
        if before and not self._depth:
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._mode.forget()


class _Softmaxes(TorchFunctionMode):
    """Sees each softmax, and what it is multiplied by."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch
        self._weights: dict[int, tuple[Tensor, nn.Module | None]] = {}

    def forget(self) -> None:
        self._weights.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in WHOLE:
            self._watch.saw_attention(self._watch.saw_softmax())
        elif name in SOFTMAXES:
            module = self._watch.saw_softmax()
            if module is not None:
                self._weights[id(output)] = output, module
        elif self._weights and name not in ENDS:
            known = next((self._weights[id(x)] for x in _tensors(args) if id(x) in self._weights), None)
            if known is not None and name in PRODUCTS:
                self._watch.saw_attention(known[1])
            elif known is not None:
                for made in _tensors(output if isinstance(output, tuple | list) else (output,)):
                    self._weights[id(made)] = made, known[1]
        return output


INTERFACE = frozenset(["ALL_ATTENTION_FUNCTIONS"])


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (part for part in value if isinstance(part, Tensor))


def _running(paths: Mapping[nn.Module, str]) -> Iterator[nn.Module]:
    """The modules of a model whose methods run now, innermost first; none where softmap called last."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back  # type: ignore[assignment]
    found = False
    while frame is not None:
        if not found and str(frame.f_globals.get("__name__")).startswith("softmap."):
            return
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and module in paths and not isinstance(module, nn.Softmax):
            found = True
            yield module
        frame = frame.f_back  # type: ignore[assignment]


def _any_within(paths: set[str], place: str) -> bool:
    return any(path == place or path.startswith(f"{place}.") for path in paths)
