"""What a model's attention is set to, while softmap stands in for it.

The configurations of a model say which attention function its layers call. They are set to softmap for a while; what
they were set to is kept, and what they are set to meanwhile: afterwards they are as their user has set them last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from softmap.errors import ModelError
from softmap.models.attending import eager_function
from softmap.models.implementations import kind_of
from softmap.models.masking import ModelMask
from softmap.models.settings import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from softmap.models.recorder import Recorder

IMPLEMENTATION = "softmap"

_found: dict[int, tuple[Standing, str | None]] = {}
"""What the configurations of models in a recording are set to but for it, by their id."""


class Standing:
    """A model in a recording, and its configurations.

    Attributes:
        model: the model.
        recorder: its recording.
    """

    def __init__(self, model: PreTrainedModel, recorder: Recorder) -> None:
        self.model, self.recorder = model, recorder
        self._taken: dict[int, Any] = {}

    def take(self) -> None:
        """Set the model to softmap, for the first time.

        Raises:
            ModelError: it is set to a function that may compute anything.
        """
        model, found = self.model, configs_of(self.model)
        for config in found:
            self._check(config)
        for config in found:
            self._keep(config)
        self.recorder.found = model.config._attn_implementation
        if model.config._attn_implementation != IMPLEMENTATION:
            with quiet_transformers():
                model.set_attn_implementation(IMPLEMENTATION)

    def take_again(self, configs: list[Any]) -> None:
        """Set configurations to softmap that were set to something else meanwhile, as ``set_attn_implementation`` does.

        Raises:
            ModelError: as `take`.
        """
        for config in configs:
            if getattr(config, "_attn_implementation", IMPLEMENTATION) != IMPLEMENTATION:
                self._check(config)
                self._keep(config)
                config._attn_implementation_internal = IMPLEMENTATION

    def put_back(self) -> None:
        """Leave the configurations as they were found, and as they were set since."""
        for key, config in self._taken.items():
            _, implementation = _found.pop(key)
            if config._attn_implementation == IMPLEMENTATION:
                config._attn_implementation_internal = implementation
        self._taken.clear()

    def refuse_new(self, module: nn.Module) -> None:
        """Refuse a layer that came into the model after its recording was opened: another model's may share its config.

        Raises:
            ModelError: it is one.
        """
        if not self.recorder.turns.is_elsewhere() and any(part is module for part in self.model.modules()):
            hint = "Put the layer in before the block."
            raise ModelError(
                self.recorder.name, "the layers that the model had", f"a new {type(module).__name__}", hint
            )

    def _keep(self, config: Any) -> None:
        self._taken[id(config)] = config
        _found[id(config)] = self, config._attn_implementation

    def _check(self, config: Any) -> None:
        if kind_of(config._attn_implementation) is None:
            hint = 'Set it to another first: model.set_attn_implementation("sdpa").'
            expected = "an attention function of transformers' own"
            raise ModelError(self.recorder.name, expected, repr(config._attn_implementation), hint)


def found_in(config: Any) -> tuple[Standing | None, str | None]:
    """What has set a configuration to softmap for a while, and what it is set to but for that; None where that is none."""
    return _found.get(id(config), (None, getattr(config, "_attn_implementation", IMPLEMENTATION)))


def own_function(module: nn.Module, eager: Callable[..., Any] | None) -> Callable[..., tuple[Any, Any]] | None:
    """The function that a layer's model is set to where softmap only stands in; None where it is softmap for good.

    Args:
        module: the layer.
        eager: the plain function that it would call by itself.
    """
    implementation = found_in(getattr(module, "config", None))[1]
    if implementation == IMPLEMENTATION:
        return None
    own: Callable[..., tuple[Any, Any]] | None = AttentionInterface().get(
        implementation, eager or eager_function(module)
    )
    return own


def own_mask(module: nn.Module, mask: Any) -> Any:
    """A mask as the function that a layer's model is set to takes it."""
    if not isinstance(mask, ModelMask):
        return mask
    return mask_as_asked(found_in(getattr(module, "config", None))[1], mask.asked)


def mask_as_asked(implementation: str | None, asked: Mapping[str, Any]) -> Any:
    """The mask that an implementation makes of what a model asks for; None where it has none, as in transformers."""
    make = None if implementation is None else AttentionMaskInterface().get(implementation, None)
    return None if make is None else make(**asked)


def configs_of(model: PreTrainedModel) -> list[Any]:
    """The configurations of a model and all its parts, each once."""
    waiting = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    found: dict[int, Any] = {}
    while waiting:
        config = waiting.pop()
        if id(config) not in found:
            found[id(config)] = config
            waiting += [sub for name in config.sub_configs if (sub := getattr(config, name, None)) is not None]
    return list(found.values())
