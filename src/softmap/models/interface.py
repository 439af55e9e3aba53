"""softmap in the place of a model's attention function, through ``transformers``' own interfaces.

``softmap`` is registered as an attention function and as a mask function
(https://huggingface.co/docs/transformers/attention_interface). A model that is set to it computes what it always does;
while a recording is open, what it hands to its attention function is kept.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask, sdpa_mask

from softmap.errors import ModelError
from softmap.models.attending import Call, attend, eager_function
from softmap.models.defaults import seeing_defaults
from softmap.models.faults import answering_for_itself
from softmap.models.masking import ModelMask
from softmap.models.settings import quiet_transformers
from softmap.recorded import OtherLayer

if TYPE_CHECKING:
    from softmap.models.recorder import Recorder

IMPLEMENTATION = "softmap"
OTHER_SEQUENCE = ("key_value_states", "encoder_hidden_states", "cross_attention_states", "kv_hidden_states")
"""Arguments by which attention layers are given another sequence to look at."""
ATTENTION = re.compile(r"Attention|Attn")
LINEAR = re.compile(r"Linear|Lightning|DeltaNet|Mamba|Mixer|Recurrent|Rwkv|Conv|SSM")
REFUSED = (
    "softmap sees attention that goes through transformers' AttentionInterface; the table of models is in the docs."
)

NEVER_SKIPPED = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
"""Options of a mask function by which it makes a mask where none is needed too."""
KNOWN = re.compile(r"(paged\|)?(eager|sdpa|flex_attention|flash_attention_\d|softmap)|.+/.+")
"""Attention functions that compute what a model's eager one does: transformers' own, and kernels of the hub."""

_recorders: weakref.WeakKeyDictionary[nn.Module, Recorder] = weakref.WeakKeyDictionary()
"""The recording that each module is in."""
_found: dict[int, tuple[Recorder, str]] = {}
"""What the configurations of models in a recording were set to before, by their id."""
_OPENING = threading.Lock()


def _attend(
    module: nn.Module,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    *,
    eager: Callable[..., Any] | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """The attention function: arrays (batch, heads, tokens, d) in, the output (batch, tokens, heads, d_v) out.

    `eager` is the function that the module would call by itself.
    """
    recorder = _recorders.get(module)
    ours = recorder is not None and not recorder.is_elsewhere()
    own = None if ours or isinstance(attention_mask, ModelMask) else _own_function(module, eager)
    if own is not None:
        return own(module, query, key, value, attention_mask, **options)
    return _attend_as_softmap(module, query, key, value, attention_mask, options, eager)


def _name(module: nn.Module, *_: Any) -> str:
    recorder = _recorders.get(module)
    return type(module).__name__ if recorder is None else f"{recorder.name}, {recorder.paths[module]}"


@answering_for_itself(_name)
def _attend_as_softmap(
    module: nn.Module, q: Any, k: Any, v: Any, mask: Any, options: dict[str, Any], eager: Callable[..., Any] | None
) -> tuple[Any, Any]:
    mask = mask.for_queries(q.shape[2]) if isinstance(mask, ModelMask) else mask
    mask = mask[(None,) * (4 - mask.ndim)] if isinstance(mask, torch.Tensor) and mask.ndim < 4 else mask
    call, recorder = Call(module, q, k, v, mask, options, eager), _recorders.get(module)
    if recorder is not None and recorder.owners.is_reading and not recorder.is_elsewhere():
        recorder.owners.read(recorder.owners.begin_call(module), q)
        recorder = None
    recorded = recorder is not None and not recorder.is_elsewhere()
    output = recorder.attend(call) if recorded and recorder is not None else _attend_unrecorded(call)
    return output.transpose(1, 2).contiguous(), None


def _own_function(module: nn.Module, eager: Callable[..., Any] | None) -> Callable[..., tuple[Any, Any]] | None:
    """The function that a model is set to, where softmap only stands in: as another thread's recording has it do."""
    config = getattr(module, "config", None)
    found = _found.get(id(config))
    implementation = getattr(config, "_attn_implementation", IMPLEMENTATION) if found is None else found[1]
    if implementation == IMPLEMENTATION:
        return None
    own: Callable[..., tuple[Any, Any]] | None = AttentionInterface().get(
        implementation, eager or eager_function(module)
    )
    return own


def _attend_unrecorded(call: Call) -> torch.Tensor:
    name = type(call.module).__name__
    call.check(name)
    rows, keys = call.positions or (range(call.q.shape[2]), range(call.k.shape[2]))
    output = call.q.new_zeros(*call.q.shape[:3], call.v.shape[3])
    for item in range(call.q.shape[0]):
        piece = call.piece(item, rows, keys, trim=False)
        output[item] = attend(piece, None, piece.problem)[0]
    if torch.is_grad_enabled() and call.q.requires_grad:
        hint = "Run the model under torch.no_grad(), or train it with another attention function."
        raise ModelError(name, "a run without gradients", "one with gradients", hint)
    return output


def _mask(**asked: Any) -> Any:
    """The mask function; another thread's run of a model in a recording gets the mask that it would have without."""
    recorder, implementation = _found.get(id(asked.get("config")), (None, IMPLEMENTATION))
    if recorder is None or not recorder.is_elsewhere() or implementation == IMPLEMENTATION:
        return _model_mask(implementation, **asked)
    own = AttentionMaskInterface().get(implementation)
    return None if own is None else own(**asked)  # as transformers does


@answering_for_itself(lambda _, **asked: getattr(asked.get("config"), "model_type", "the model"))
def _model_mask(implementation: str, **asked: Any) -> ModelMask:
    """What the model asks for, as it asks for it. A mask that it has already stays as it is."""
    given = asked.get("attention_mask")
    if isinstance(given, ModelMask):
        return given
    asked["attention_mask"] = valid = None if given is None else given.bool()
    first_row, first_key = int(asked.get("q_offset", 0)), int(asked.get("kv_offset", 0))
    of_booleans = implementation == "sdpa"
    return ModelMask(
        rows=range(first_row, first_row + asked["q_length"]),
        keys=range(first_key, first_key + asked["kv_length"]),
        function=asked["mask_function"],
        valid=valid,
        by_element=asked.get("use_vmap", False),
        model=getattr(asked.get("config"), "model_type", "the model"),
        batch=int(asked.get("batch_size", 1)),
        dtype=torch.bool if of_booleans else asked.get("dtype", torch.float32),
        device=torch.device(asked.get("device", "cpu")),
        own=partial(sdpa_mask if of_booleans else eager_mask, **{"batch_size": 1} | asked | NEVER_SKIPPED),
    )


AttentionInterface.register(IMPLEMENTATION, _attend)
AttentionMaskInterface.register(IMPLEMENTATION, _mask)


@contextlib.contextmanager
def standing_in(model: PreTrainedModel, recorder: Recorder) -> Iterator[None]:
    """Put softmap in the place of the model's attention function; afterwards all is as it was found.

    Raises:
        ModelError: the model is being recorded already.
    """
    modules = list(model.modules())
    with contextlib.ExitStack() as undo:
        with _OPENING:
            if any(module in _recorders for module in modules):
                hint = "Close that recording first, or load the model a second time."
                raise ModelError(recorder.name, "a model that is not being recorded", "one that is", hint)
            for module in modules:
                undo.callback(_recorders.pop, module, None)
                _recorders[module] = recorder
        for config in _configs(model):
            if not KNOWN.fullmatch(str(config._attn_implementation)):
                hint = 'Set it to another first: model.set_attn_implementation("sdpa").'
                expected = "an attention function of transformers' own"
                raise ModelError(recorder.name, expected, repr(config._attn_implementation), hint)
        for module in filter(calls_interface, modules):
            undo.callback(module.register_forward_pre_hook(_before(recorder), with_kwargs=True).remove)
        for config in _configs(model):
            undo.callback(_found.pop, id(config), None)
            _found[id(config)] = recorder, config._attn_implementation
            undo.callback(setattr, config, "_attn_implementation_internal", config._attn_implementation_internal)
        if model.config._attn_implementation != IMPLEMENTATION:
            with quiet_transformers():
                model.set_attn_implementation(IMPLEMENTATION)
        undo.enter_context(seeing_defaults(_attend))
        undo.enter_context(torch.no_grad())
        yield


def calls_interface(module: nn.Module) -> bool:
    """Whether a method of the module's class asks for the attention function that the model is set to."""
    return not isinstance(module, PreTrainedModel) and any(
        "ALL_ATTENTION_FUNCTIONS" in inspect.unwrap(method).__code__.co_names
        for base in type(module).__mro__
        if base.__module__.partition(".")[0] != "torch"
        for method in vars(base).values()
        if inspect.isfunction(inspect.unwrap(method)) and hasattr(inspect.unwrap(method), "__code__")
    )


def find_others(model: PreTrainedModel, name: str) -> tuple[OtherLayer, ...]:
    """The layers that a recording will not hold: hybrid models' other layers, and pooling by torch's own attention.

    Raises:
        ModelError: the model has softmax attention that can't be seen, or none that can.
    """
    paths = {module: path for path, module in model.named_modules()}
    seen = {module for module in paths if calls_interface(module)}
    near = {module for module in paths if any(part in seen for part in module.modules())}
    near |= {part for module in seen for part in module.modules()}
    beside = {module for module in paths if module not in near and ATTENTION.search(type(module).__name__)}
    beside -= {part for module in beside for part in module.modules() if part is not module}
    linear = {module for module in beside if LINEAR.search(type(module).__name__)}
    pooling = {module for module in beside if seen and _pools(module)}
    unseen = [module for module in paths if module in beside - linear - pooling]
    if unseen or not seen:
        listed = ", ".join(f"{paths[module]} ({type(module).__name__})" for module in unseen[:6])
        more = f" and {len(unseen) - 6} more" if len(unseen) > 6 else ""
        got = f"{type(model).__name__}, in which these would not be seen: {listed}{more}" if unseen else ""
        got = got or f"{type(model).__name__}, which has no softmax attention that goes through it"
        raise ModelError(name, "attention that goes through transformers' AttentionInterface", got, REFUSED)
    found = [OtherLayer(paths[m], type(m).__name__, "not through the interface") for m in paths if m in pooling]
    return (*_without_attention(paths, near), *found)


def _pools(module: nn.Module) -> bool:
    """Whether it is torch's own attention, or a head around it, which no attention function of a model reaches."""
    return any(isinstance(part, nn.MultiheadAttention) for part in module.modules())


def _without_attention(paths: dict[nn.Module, str], near: set[nn.Module]) -> list[OtherLayer]:
    """Blocks of a stack that have no attention where their neighbours do, by the module that mixes tokens there."""
    stacks = {
        f"{path}.": stack
        for stack, path in paths.items()
        if isinstance(stack, nn.ModuleList) and any(block in near for block in stack)
    }
    outermost = [stack for path, stack in stacks.items() if not any(path != p and path.startswith(p) for p in stacks)]
    blocks = [block for stack in outermost for block in stack if block not in near]
    mixers = [next((part for part in list(block.modules())[1:] if _mixes(part)), block) for block in blocks]
    return [OtherLayer(paths[mixer], type(mixer).__name__) for mixer in mixers]


def _mixes(module: nn.Module) -> bool:
    """Whether it mixes tokens, as its name tells; norms of such models bear it too."""
    return (
        not type(module).__name__.endswith("Norm")
        and not type(module).__module__.startswith("torch.")
        and bool(LINEAR.search(type(module).__name__))
    )


def _before(recorder: Recorder) -> Any:
    """The hook that sees an attention layer's arguments before it runs."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if recorder.is_elsewhere() or recorder.owners.is_reading:
            return
        recorder.visits[module] = recorder.visits.get(module, 0) + 1
        given = dict(zip(_parameters(type(module)), args, strict=False)) | kwargs
        if any(given.get(name) is not None for name in OTHER_SEQUENCE):
            recorder.cross.add(module)
        else:
            recorder.cross.discard(module)
        recorder.saw(module, given)

    return hook


def _parameters(kind: type[nn.Module]) -> list[str]:
    return list(inspect.signature(kind.forward).parameters)[1:]


def _configs(model: PreTrainedModel) -> list[Any]:
    """The configurations of a model and all its parts, each once."""
    waiting = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    found: dict[int, Any] = {}
    while waiting:
        config = waiting.pop()
        if id(config) not in found:
            found[id(config)] = config
            waiting += [sub for name in config.sub_configs if (sub := getattr(config, name, None)) is not None]
    return list(found.values())
