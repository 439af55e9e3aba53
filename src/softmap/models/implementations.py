"""What the attention function that a model was set to makes of a mask, and of a call without one.

softmap stands in under a name of its own, for which a model would have every mask made. The function that was found
may be handed none where its library knows a shorter way, and then decides by a flag of the layer's
(``transformers.masking_utils``, ``transformers.integrations``). What it does is what is recorded:

1. eager and flex_attention: a call without a mask looks both ways.
2. sdpa: a call without a mask is causal where the layer says so. Sinks are not applied, a soft cap is refused.
3. flash_attention, and kernels of the hub that are like it: a mask is padding only; what is causal and the window come
   from the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flash_attention import flash_attention_forward

from softmap import masks
from softmap.errors import ModelError
from softmap.models.masking import CAUSAL, EVERYTHING, ModelMask, Rule, both

if TYPE_CHECKING:
    from torch import Tensor, nn

    Function = Callable[..., tuple[Any, Any]]

Kind = Literal["eager", "sdpa", "flex", "flash", "softmap"]
KINDS: Mapping[str, Kind] = {"eager": "eager", "sdpa": "sdpa", "flex_attention": "flex", "softmap": "softmap"}
ANOTHER = 'Set the model to another first: model.set_attn_implementation("sdpa").'


class _MaskNeededError(Exception):
    """The library makes the mask that it was asked for."""


def kind_of(implementation: str | None) -> Kind | None:
    """The kind of an attention function by its name; None of one that may compute something else.

    A configuration that names none has its layers run eager attention.
    """
    name = "eager" if implementation is None else implementation.removeprefix("paged|")
    if name in KINDS:
        return KINDS[name]
    function = AttentionInterface().get(name, None)
    return "flash" if function is flash_attention_forward else None


def leaves_mask_out(implementation: str | None, asked: Mapping[str, Any]) -> bool:
    """Whether the attention function is handed no mask where a model asks for this one.

    The library's own function is asked, and stopped as soon as it would make a mask of queries x keys.
    """
    own = None if implementation is None else AttentionMaskInterface().get(implementation, None)
    if own is None:  # transformers makes masks only for those that it knows
        return True
    if kind_of(implementation) == "flex":
        return False
    try:
        return own(**{**asked, "mask_function": _stop}) is None
    except _MaskNeededError:
        return False


def _stop(*_: Any) -> NoReturn:
    raise _MaskNeededError


def is_causal(implementation: str | None, module: nn.Module, said: Any, queries: int) -> bool:
    """Whether a call without a mask hides the keys after each query.

    Args:
        implementation: the attention function that the layer was set to.
        module: the layer.
        said: the call's own ``is_causal``, or None.
        queries: how many there are.
    """
    if kind_of(implementation) in ("eager", "flex"):
        return False
    flag = getattr(module, "is_causal", True) if said is None else said
    return bool(flag) and queries > 1


def without_mask(implementation: str | None) -> Function | None:
    """The attention function that was found, where it runs anywhere and decides by a flag what a call hides."""
    if kind_of(implementation) != "sdpa":
        return None
    function: Function = AttentionInterface()["sdpa"]
    return function


def check_options(implementation: str | None, options: Mapping[str, Any], name: str) -> None:
    """Refuse a call with which the attention function fails, or does what is not known.

    Raises:
        ModelError: options that it does not take.
    """
    kind = kind_of(implementation)
    refused = {
        "sdpa": ["softcap"],
        "flash": ["position_bias", "s_aux", "cu_seq_lens_q", "cu_seq_lens_k"],
    }.get(kind or "", [])
    wrong = [option for option in refused if options.get(option) is not None]
    if wrong:
        hint = 'Set the model to one that takes them: model.set_attn_implementation("eager").'
        raise ModelError(name, f"options that {implementation} applies", ", ".join(wrong), hint)


def sinks_of(implementation: str | None, options: Mapping[str, Any]) -> Tensor | None:
    """The sinks of a call, where the attention function applies them."""
    return None if kind_of(implementation) == "sdpa" else options.get("s_aux")


def rule_without_mask(
    implementation: str | None, module: nn.Module, options: Mapping[str, Any], queries: int, keys: int
) -> Rule:
    """Which key may be seen in a call without a mask."""
    causal = is_causal(implementation, module, options.get("is_causal"), queries)
    rule = CAUSAL if causal else EVERYTHING
    window = options.get("sliding_window")
    if kind_of(implementation) != "flash" or window is None or keys <= window:
        return rule
    return _in_window(rule, int(window) - 1)


def _in_window(rule: Rule, size: int) -> Rule:
    """The rule, within a window as the library's masks name it."""
    right = None if rule is CAUSAL else size

    def build(rows: range, keys: range) -> masks.Mask:
        window = masks.sliding_window(size, right, rows.start - keys.start)
        return both(window, rule.build(rows, keys))

    return Rule(("and", ("window", size, right), rule.name), build)


def check_mask(
    implementation: str | None,
    module: nn.Module,
    options: Mapping[str, Any],
    mask: ModelMask | Tensor | None,
    name: str,
) -> None:
    """Refuse a mask of which the attention function takes the padding only, where it says more than the layer does.

    Raises:
        ModelError: it would look at other keys than the mask shows.
    """
    if mask is None or kind_of(implementation) != "flash":
        return
    hint = f"{implementation} takes only padding from a mask. {ANOTHER}"
    expected = f"a mask that {implementation} applies"
    if not isinstance(mask, ModelMask):
        raise ModelError(name, expected, f"a matrix of shape {tuple(mask.shape)}", hint)
    rows, keys = len(mask.rows), len(mask.keys)
    applied = rule_without_mask(implementation, module, options, rows, keys).name
    for item in range(mask.shape[0]):
        asked = _without_wide_windows(mask.rule(item).name, keys)
        if asked != applied and rows > 1:
            raise ModelError(name, expected, f"{_words(asked)}, where it applies {_words(applied)}", hint)


def for_all_queries(implementation: str | None, mask: ModelMask, queries: int) -> ModelMask:
    """A mask that was asked for one query, as it is added to the scores of all of them."""
    if len(mask.rows) != 1 or queries == 1 or kind_of(implementation) in ("flex", "flash"):
        return mask
    one = mask.rows.start
    function = mask.function

    def of_that_query(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return function(batch, head, query * 0 + one, key)

    rows = range(one, one + queries)
    plain = mask.rule(0) is EVERYTHING
    return replace(mask, rows=rows, function=function if plain else of_that_query)


def _without_wide_windows(name: tuple[Any, ...], keys: int) -> tuple[Any, ...]:
    """A rule's name without windows that hold all keys."""
    if name[0] != "and":
        return name
    parts = [part for part in name[1:] if not (part[0] == "window" and part[1] + 1 >= keys)]
    return parts[0] if len(parts) == 1 else ("and", *parts)


def _words(name: tuple[Any, ...]) -> str:
    if name[0] in ("and", "or"):
        return f" {name[0]} ".join(_words(part) for part in name[1:])
    return str(name[0])
