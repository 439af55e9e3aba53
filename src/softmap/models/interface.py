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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from softmap.errors import ModelError
from softmap.models.attending import Call, attend, eager_function
from softmap.models.implementations import for_all_queries, kind_of, leaves_mask_out
from softmap.models.masking import ModelMask
from softmap.models.settings import quiet_transformers
from softmap.models.unseen import ATTENTION, Watch, names_softmax
from softmap.recorded import OtherLayer

if TYPE_CHECKING:
    from softmap.models.recorder import Recorder

IMPLEMENTATION = "softmap"
OTHER_SEQUENCE = ("key_value_states", "encoder_hidden_states", "cross_attention_states", "kv_hidden_states")
"""Arguments by which attention layers are given another sequence to look at."""
LINEAR = re.compile(r"Linear|Lightning|DeltaNet|Mamba|Mixer|Recurrent|Rwkv|Conv|SSM")
REFUSED = (
    "softmap sees attention that goes through transformers' AttentionInterface; the table of models is in the docs."
)

_recorders: weakref.WeakKeyDictionary[nn.Module, Recorder] = weakref.WeakKeyDictionary()
"""The recording that each module is in."""
_found: dict[int, tuple[Recorder, str | None]] = {}
"""What the configurations of models in a recording were set to before, by their id."""
_OPENING = threading.Lock()


def _attend(
    module: nn.Module, query: Any, key: Any, value: Any, attention_mask: Any = None, **options: Any
) -> tuple[Any, Any]:
    """The attention function: arrays (batch, heads, tokens, d) in, the output (batch, tokens, heads, d_v) out."""
    recorder = _recorders.get(module)
    ours = recorder is not None and not recorder.is_elsewhere()
    own = None if ours or isinstance(attention_mask, ModelMask) else _own_function(module)
    if own is not None:
        return own(module, query, key, value, attention_mask, **options)
    call = _call(module, query, key, value, attention_mask, options, recorder if ours else None)
    output = recorder.attend(call) if ours and recorder is not None else _attend_unrecorded(call)
    return output.transpose(1, 2).contiguous(), None


def _call(
    module: nn.Module, query: Any, key: Any, value: Any, mask: Any, options: dict[str, Any], recorder: Recorder | None
) -> Call:
    """A call, as the attention function that the layer was set to takes it."""
    config = getattr(module, "config", None)
    if recorder is None:
        return Call(module, query, key, value, mask, options)
    _, implementation = _found.get(id(config), (None, recorder.found))
    if isinstance(mask, ModelMask):
        mask = for_all_queries(implementation, mask, query.shape[2])
    places = recorder.left_out.get((id(config), query.shape[2], key.shape[2])) if mask is None else None
    return Call(module, query, key, value, mask, options, implementation, places)


def _own_function(module: nn.Module) -> Callable[..., tuple[Any, Any]] | None:
    """The function that a model is set to, where softmap only stands in: as another thread's recording has it do."""
    config = getattr(module, "config", None)
    found = _found.get(id(config))
    implementation = getattr(config, "_attn_implementation", IMPLEMENTATION) if found is None else found[1]
    if implementation == IMPLEMENTATION:
        return None
    own: Callable[..., tuple[Any, Any]] | None = AttentionInterface().get(implementation, eager_function(module))
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
    """The mask function: None where the attention function that was found would be given none.

    Another thread's run of a model in a recording gets the mask that it would have without.
    """
    recorder, implementation = _found.get(id(asked.get("config")), (None, IMPLEMENTATION))
    if recorder is not None and recorder.is_elsewhere() and implementation != IMPLEMENTATION:
        own = None if implementation is None else AttentionMaskInterface().get(implementation, None)
        return None if own is None else own(**asked)  # as transformers does
    mask = _model_mask(**asked)
    if recorder is None or isinstance(asked.get("attention_mask"), ModelMask) or implementation == IMPLEMENTATION:
        return mask
    if not leaves_mask_out(implementation, asked):
        return mask
    recorder.left_out[id(asked["config"]), len(mask.rows), len(mask.keys)] = mask.rows, mask.keys
    return None


def _model_mask(
    *,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: Any = 0,
    mask_function: Any,
    attention_mask: torch.Tensor | ModelMask | None = None,
    use_vmap: bool = False,
    config: Any = None,
    **_: Any,
) -> ModelMask:
    """What the model asks for, as it asks for it. A mask that it has already stays as it is."""
    if isinstance(attention_mask, ModelMask):
        return attention_mask
    first_row, first_key = int(q_offset), int(kv_offset)
    return ModelMask(
        rows=range(first_row, first_row + q_length),
        keys=range(first_key, first_key + kv_length),
        function=mask_function,
        valid=None if attention_mask is None else attention_mask.bool(),
        by_element=use_vmap,
        model=getattr(config, "model_type", "the model"),
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
            if kind_of(config._attn_implementation) is None:
                hint = 'Set it to another first: model.set_attn_implementation("sdpa").'
                expected = "an attention function of transformers' own"
                raise ModelError(recorder.name, expected, repr(config._attn_implementation), hint)
        for module in filter(calls_interface, modules):
            undo.callback(module.register_forward_pre_hook(_before(recorder), with_kwargs=True).remove)
        recorder.found = model.config._attn_implementation
        for config in _configs(model):
            undo.callback(_found.pop, id(config), None)
            _found[id(config)] = recorder, config._attn_implementation
            undo.callback(setattr, config, "_attn_implementation_internal", config._attn_implementation_internal)
        if model.config._attn_implementation != IMPLEMENTATION:
            with quiet_transformers():
                model.set_attn_implementation(IMPLEMENTATION)
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


def _before(recorder: Recorder) -> Any:
    """The hook that sees an attention layer's arguments before it runs."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if recorder.is_elsewhere():
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
