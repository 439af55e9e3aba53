"""What a model stands in -> the model itself, which is what runs: parallel and compiled modules, adapters, pipelines.

A wrapper whose run is more than that of the model inside it is refused, with the object that can be given instead.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

from torch import nn

from softmap.errors import ModelError


class Unwrapped(NamedTuple):
    """A model and what came with it.

    Attributes:
        model: what was in the wrapper; what was given, where that is none.
        tokenizer: the wrapper's own tokenizer or processor; None without one.
        prompt: what the wrapper puts before each text.
    """

    model: Any
    tokenizer: Any = None
    prompt: str = ""


def unwrap(given: Any) -> Unwrapped:
    """The model inside of wrappers, however many stand around each other.

    Raises:
        ModelError: a wrapper that holds no model, or several, or that runs another computation than its model's.
    """
    found = Unwrapped(given)
    while True:
        inner = _inside(found.model)
        if inner is None:
            return found
        tokenizer = inner.tokenizer if found.tokenizer is None else found.tokenizer
        found = Unwrapped(inner.model, tokenizer, found.prompt + inner.prompt)


def models_in(given: Any) -> dict[str, Any]:
    """The models of transformers in an object, by their paths, without those inside each other."""
    from transformers import PreTrainedModel

    if not isinstance(given, nn.Module):
        inside = vars(given) if hasattr(given, "__dict__") else {}
        return {name: value for name, value in inside.items() if isinstance(value, PreTrainedModel)}
    found: dict[str, Any] = {}
    for path, module in given.named_modules():
        if isinstance(module, PreTrainedModel) and not any(f"{path}.".startswith(f"{outer}.") for outer in found):
            found[path] = module
    return found


def hint_at(given: Any) -> str:
    """The models in an object, as an expression of it; empty without any."""
    names = [_as_code(path) for path in list(models_in(given))[:4]]
    return f"Give the model in it: {' or '.join(names)}, where model is what you gave." if names else ""


@contextlib.contextmanager
def in_order_of_giving(given: Any) -> Iterator[None]:
    """Let sentence-transformers' ``encode`` take texts as they come: it sorts them by a length that it asks for."""
    name = next((name for name in ("_input_length", "_text_length") if hasattr(type(given), name)), None)
    if not any(_is_of(given, "sentence_transformers", kind) for kind in _KIN) or name is None or name in vars(given):
        yield
        return
    numbers = count()
    setattr(given, name, lambda _: -next(numbers))
    try:
        yield
    finally:
        delattr(given, name)


def _inside(given: Any) -> Unwrapped | None:
    """One wrapper less; None of what is none."""
    return next((look(given) for (library, name), look in _WRAPPERS.items() if _is_of(given, library, name)), None)


def _is_of(given: Any, module: str, name: str) -> bool:
    """Whether an object is of a class, or a kind of it, of a library that may not be there: nothing is imported."""
    if module.partition(".")[0] not in sys.modules:
        return False
    return any(
        base.__name__ == name and (base.__module__ == module or base.__module__.startswith(f"{module}."))
        for base in type(given).__mro__
    )


def _of_parallel(given: Any) -> Unwrapped:
    if len(given.device_ids) > 1:
        got = f"a DataParallel on {len(given.device_ids)} devices, which runs copies of it"
        raise ModelError("model", "one model", got, "Give its .module, and call that.")
    return Unwrapped(given.module)


def _of_adapters(given: Any) -> Unwrapped:
    """The model that adapters were put into. Virtual tokens are not in it: they stand beside it.

    Raises:
        ModelError: virtual tokens.
    """
    kinds = {str(config.peft_type.value) for config in given.peft_config.values() if config.is_prompt_learning}
    if kinds:
        got = f"{type(given).__name__} with {', '.join(sorted(kinds))}, whose virtual tokens are not part of its model"
        hint = "Open softmap.recording(peft_model.get_base_model()), and run the PeftModel in the block."
        raise ModelError("model", "adapters inside the model", got, hint)
    return Unwrapped(given.get_base_model())


def _of_sentences(given: Any) -> Unwrapped:
    """The model in a SentenceTransformer, a CrossEncoder or one of their kin.

    Raises:
        ModelError: it holds none, or several.
    """
    for module in given.modules():
        if _is_of(module, "peft", "PeftModel"):
            _of_adapters(module)
    kind, found = type(given).__name__, models_in(given)
    if len(found) != 1:
        listed = ", ".join(f"{path} ({type(each).__name__})" for path, each in found.items())
        got = f"{kind} with {listed}" if found else f"{kind}, which holds none"
        hint = hint_at(given) or "softmap sees the attention of transformers' models."
        raise ModelError("model", "one model of transformers", got, hint)
    model = next(iter(found.values()))
    holders = (module for module in given.modules() if hasattr(module, "processor") or hasattr(module, "tokenizer"))
    holder = next((each for each in holders if each is not given and model in each.modules()), None)
    reader = (
        getattr(holder, "processor", None) or getattr(holder, "tokenizer", None) or getattr(given, "tokenizer", None)
    )
    return Unwrapped(model, reader, _prompt_of(given) or "")


def _prompt_of(given: Any) -> str | None:
    """What is put before each text, where nothing else is asked for."""
    if hasattr(given, "_resolve_prompt"):
        prompt: str | None = given._resolve_prompt(None, None)
        return prompt
    return (getattr(given, "prompts", None) or {}).get(getattr(given, "default_prompt_name", None))  # before 5.4


def _of_pipeline(given: Any) -> Unwrapped:
    """The model of a pipeline, with what reads its inputs."""
    readers = (
        getattr(given, name, None) for name in ("tokenizer", "processor", "image_processor", "feature_extractor")
    )
    return Unwrapped(given.model, next((each for each in readers if each is not None), None))


def _as_code(path: str) -> str:
    """A module's path as an expression."""
    return "model" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path.split("."))


_KIN = ("BaseModel", "SentenceTransformer", "CrossEncoder")
"""What sentence-transformers calls its models; before its version 5.4 they have no base in common."""
_WRAPPERS: dict[tuple[str, str], Callable[[Any], Unwrapped]] = {
    ("torch.nn.parallel", "DataParallel"): _of_parallel,
    ("torch.nn.parallel", "DistributedDataParallel"): lambda given: Unwrapped(given.module),
    ("torch._dynamo", "OptimizedModule"): lambda given: Unwrapped(given._orig_mod),
    ("peft", "PeftModel"): _of_adapters,
    ("peft", "PeftMixedModel"): lambda given: Unwrapped(given.base_model.model),
    **{("sentence_transformers", kind): _of_sentences for kind in _KIN},
    ("transformers", "Pipeline"): _of_pipeline,
}
"""The library and the class of each wrapper, and what looks into it."""
