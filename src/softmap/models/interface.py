"""softmap in the place of a model's attention function, through ``transformers``' own interfaces.

``softmap`` is registered as an attention function and as a mask function
(https://huggingface.co/docs/transformers/attention_interface). A model that is set to it computes what it always does;
while a recording is open, what it hands to its attention function is kept.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from softmap.errors import ModelError, SoftmapError
from softmap.forking import Lock
from softmap.models.attending import Call, attend
from softmap.models.casting import as_cast, cast_dtype, undisturbed
from softmap.models.compiling import uncompiled
from softmap.models.defaults import seeing_defaults
from softmap.models.faults import answering_for_itself
from softmap.models.gradients import refuse_gradients
from softmap.models.implementations import for_all_queries, kind_of, leaves_mask_out
from softmap.models.masking import ModelMask
from softmap.models.standing import (
    IMPLEMENTATION,
    Standing,
    configs_of,
    found_in,
    mask_as_asked,
    own_function,
    own_mask,
)
from softmap.models.unseen import ATTENTION, Watch, names_softmax
from softmap.models.weights import gives_weights, is_a_page, own_answer, warn_of_weights
from softmap.recorded import OtherLayer

if TYPE_CHECKING:
    from softmap.models.recorder import Recorder

OTHER_SEQUENCE = ("key_value_states", "encoder_hidden_states", "cross_attention_states", "kv_hidden_states")
"""Arguments by which attention layers are given another sequence to look at."""
LINEAR = re.compile(r"Linear|Lightning|DeltaNet|Mamba|Mixer|Recurrent|Rwkv|Conv|SSM")
REFUSED = (
    "softmap sees attention that goes through transformers' AttentionInterface; the table of models is in the docs."
)

_recorders: weakref.WeakKeyDictionary[nn.Module, Recorder] = weakref.WeakKeyDictionary()
"""The recording that each module is in."""
_OPENING = Lock()


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
    mask = attention_mask
    if isinstance(mask, torch.Tensor) and mask.ndim < 4:
        mask = mask[(None,) * (4 - mask.ndim)]
    call = Call(module, query, key, value, mask, options, eager)
    recorder = _recorders.get(module)
    answer = None if recorder is None else _recorded(call, recorder)
    if answer is not None:
        return answer
    standing, own = found_in(getattr(module, "config", None))[0], own_function(module, eager)
    if recorder is None and standing is not None:
        standing.refuse_new(module)
    if own is not None and (not isinstance(mask, ModelMask) or mask.asked):
        return own(module, query, key, value, own_mask(module, attention_mask), **options)
    return _attend_unrecorded(call).transpose(1, 2).contiguous(), None


def _recorded(call: Call, recorder: Recorder) -> tuple[Any, Any] | None:
    """What the model gets back where its run is recorded; None of a run that is another thread's own business."""
    turns = recorder.turns
    with turns.turn() as ours:
        if not ours:
            return None
        path = f"{recorder.name}, {recorder.paths[call.module]}"
        try:
            refuse_gradients(call, path)
            call = _as_found(call, recorder)
            output = _seen(call, recorder)
        except SoftmapError as error:
            if turns.keeps(error):
                return None
            raise
        if gives_weights(call):
            if is_a_page(call):
                return own_answer(call)
            if recorder.weights_asked:
                recorder.weights_asked = False  # said once
                warn_of_weights(path, call)
        return output.transpose(1, 2).contiguous(), None


@answering_for_itself(lambda call, recorder: f"{recorder.name}, {recorder.paths[call.module]}")
def _seen(call: Call, recorder: Recorder) -> torch.Tensor:
    """The output of a call that is recorded, or of one by which a sequence of the batch is read by itself."""
    recorder.cast, cast = cast_dtype(call.q.device.type), as_cast(call)
    with undisturbed(call.q.device.type):
        if not recorder.owners.is_reading:
            return recorder.attend(cast)
        recorder.owners.read(recorder.owners.begin_call(call.module), cast.q)
        return _computed(cast)


def _as_found(call: Call, recorder: Recorder) -> Call:
    """The call as the attention function that its layer was set to takes it."""
    config = getattr(call.module, "config", None)
    standing, implementation = found_in(config)
    if standing is None:  # a layer with no configuration of its own
        implementation = recorder.found
    mask, places = call.mask, None
    if isinstance(mask, ModelMask):
        mask = for_all_queries(implementation, mask, call.q.shape[2])
    elif mask is None:
        places = recorder.left_out.get((id(config), call.q.shape[2], call.k.shape[2]))
    return replace(call, mask=mask, implementation=implementation, places=places)


@answering_for_itself(lambda call: type(call.module).__name__)
def _attend_unrecorded(call: Call) -> torch.Tensor:
    name = type(call.module).__name__
    call.check(name)
    refuse_gradients(call, name)
    if isinstance(call.mask, ModelMask):
        call = replace(call, mask=for_all_queries(IMPLEMENTATION, call.mask, call.q.shape[2]))
    cast = as_cast(call)
    with undisturbed(call.q.device.type):
        return _computed(cast)


def _computed(call: Call) -> torch.Tensor:
    rows, keys = call.positions or (range(call.q.shape[2]), range(call.k.shape[2]))
    output = call.q.new_zeros(*call.q.shape[:3], call.v.shape[3])
    for item in range(call.q.shape[0]):
        piece = call.piece(item, rows, keys, trim=False)
        output[item] = attend(piece, None, piece.problem)[0]
    return output


def _mask(**asked: Any) -> Any:
    """The mask function: None where the attention function that was found would be given none.

    Another thread's run of a model in a recording gets the mask that it would have without.
    """
    standing, implementation = found_in(asked.get("config"))
    if standing is None or implementation == IMPLEMENTATION:
        return _model_mask(implementation, asked)
    recorder = standing.recorder
    if recorder.turns.is_elsewhere():
        return mask_as_asked(implementation, asked)
    mask = _model_mask(implementation, asked)
    if isinstance(asked.get("attention_mask"), ModelMask) or not leaves_mask_out(implementation, asked):
        return mask
    recorder.left_out[id(asked["config"]), len(mask.rows), len(mask.keys)] = mask.rows, mask.keys
    return None


@answering_for_itself(lambda _, asked: getattr(asked.get("config"), "model_type", "the model"))
def _model_mask(implementation: str | None, asked: dict[str, Any]) -> ModelMask:
    """What the model asks for, as it asks for it. A mask that it has already stays as it is."""
    given = asked.get("attention_mask")
    if isinstance(given, ModelMask):
        return given
    valid = None if given is None else given.bool()
    first_row, first_key = int(asked.get("q_offset", 0)), int(asked.get("kv_offset", 0))
    return ModelMask(
        rows=range(first_row, first_row + asked["q_length"]),
        keys=range(first_key, first_key + asked["kv_length"]),
        function=asked["mask_function"],
        valid=valid,
        by_element=asked.get("use_vmap", False),
        model=getattr(asked.get("config"), "model_type", "the model"),
        batch=int(asked.get("batch_size", 1)),
        dtype=torch.bool if kind_of(implementation) == "sdpa" else asked.get("dtype", torch.float32),
        device=torch.device(asked.get("device", "cpu")),
        asked=asked | {"attention_mask": valid, "q_offset": first_row, "kv_offset": first_key},  # a cache may count on
    )


_ATTEND = torch.compiler.disable(_attend)  # tracing the kernels takes minutes
AttentionInterface.register(IMPLEMENTATION, _ATTEND)
AttentionMaskInterface.register(IMPLEMENTATION, torch.compiler.disable(_mask))


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
        standing = Standing(model, recorder)
        undo.callback(standing.put_back)
        standing.take()
        for module in filter(calls_interface, modules):
            undo.callback(module.register_forward_pre_hook(_before(recorder, standing), with_kwargs=True).remove)
        for module in modules:
            if isinstance(module, PreTrainedModel):
                undo.callback(module.register_forward_pre_hook(_set_again(recorder, standing)).remove)
        undo.enter_context(seeing_defaults(_ATTEND))
        undo.enter_context(uncompiled())
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


@dataclass(frozen=True)
class Sight:
    """What of a model can be seen, before it runs.

    Attributes:
        seen: attention layers that go through the interface.
        beside: modules that are called attention, and have nothing to do with those.
        pooling: which of them are pooling by torch's own attention.
        others: hybrid models' other layers.
    """

    seen: set[nn.Module]
    beside: set[nn.Module]
    pooling: set[nn.Module]
    others: tuple[OtherLayer, ...]


def look(model: PreTrainedModel, name: str) -> Sight:
    """What of a model can be seen, and what is to be watched when it runs.

    Raises:
        ModelError: the model has no softmax attention that can be seen.
    """
    paths = {module: path for path, module in model.named_modules()}
    seen = {module for module in paths if calls_interface(module)}
    near = {module for module in paths if any(part in seen for part in module.modules())}
    near |= {part for module in seen for part in module.modules()}
    beside = {module for module in paths if module not in near and ATTENTION.search(type(module).__name__)}
    beside -= {part for module in beside for part in module.modules() if part is not module}
    if not seen:
        unseen = [module for module in paths if module in beside and _computes(module)]
        raise refusal(model, name, unseen)
    pooling = {module for module in beside if _pools(module)}
    return Sight(seen, beside, pooling, tuple(_without_attention(paths, near)))


def refusal(model: PreTrainedModel, name: str, unseen: list[nn.Module]) -> ModelError:
    """The error for a model of which these modules would not be seen; without any, which has no softmax attention."""
    paths = {module: path for path, module in model.named_modules()}
    listed = ", ".join(f"{paths[module]} ({type(module).__name__})" for module in unseen[:6])
    more = f" and {len(unseen) - 6} more" if len(unseen) > 6 else ""
    got = f"{type(model).__name__}, in which these would not be seen: {listed}{more}" if unseen else ""
    got = got or f"{type(model).__name__}, which has no softmax attention that goes through it"
    return ModelError(name, "attention that goes through transformers' AttentionInterface", got, REFUSED)


def watch(model: PreTrainedModel, sight: Sight, recorder: Recorder) -> Watch:
    """What watches the model's runs for attention that can't be seen."""

    def refuse(module: nn.Module) -> ModelError:
        alike = [other for other in recorder.paths if other in sight.beside and type(other) is type(module)]
        return refusal(model, recorder.name, alike)

    return Watch(recorder, sight.seen, sight.beside, sight.pooling, refuse)


def _computes(module: nn.Module) -> bool:
    """Whether it, or a part of it, names a softmax."""
    return any(names_softmax(type(part)) for part in module.modules())


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
        and bool(LINEAR.search(type(module).__name__) or ATTENTION.search(type(module).__name__))
    )


def _set_again(recorder: Recorder, standing: Standing) -> Any:
    """The hook that sees to it, before a model runs, that softmap still stands in."""

    def hook(module: PreTrainedModel, args: tuple[Any, ...]) -> None:
        with recorder.turns.turn() as ours:
            if ours:
                standing.take_again(configs_of(module))

    return hook


def _before(recorder: Recorder, standing: Standing) -> Any:
    """The hook that sees an attention layer's arguments before it runs."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with recorder.turns.turn() as ours:
            if (
                ours and module in recorder.paths and not recorder.owners.is_reading
            ):  # a copy of the model has its hooks
                standing.take_again([getattr(module, "config", None)])
                _note(module, args, kwargs, recorder)

    return hook


def _note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], recorder: Recorder) -> None:
    """See what an attention layer is called with, and how often."""
    recorder.enter(module)
    given = dict(zip(_parameters(type(module)), args, strict=False)) | kwargs
    if any(given.get(name) is not None for name in OTHER_SEQUENCE):
        recorder.cross.add(module)
    else:
        recorder.cross.discard(module)
    recorder.saw(module, given)


def _parameters(kind: type[nn.Module]) -> list[str]:
    return list(inspect.signature(kind.forward).parameters)[1:]
