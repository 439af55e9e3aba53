"""What a model is given while it is recorded: token ids and which of them are real, run by run; and pictures."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from softmap.models.owners import Running
from softmap.models.pictures import Seen

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor

    from softmap.models.recorder import Recorder

BATCHED = [
    "input_ids",
    "decoder_input_ids",
    "inputs_embeds",
    "decoder_inputs_embeds",
    "pixel_values",
    "input_features",
    "input_values",
    "pixel_values_videos",
    "past_values",
]
"""Arguments whose first axis counts sequences."""


@dataclass(eq=False)
class Read:
    """The ids of one text that a model reads, of all sequences.

    Attributes:
        ids: those of each run, (batch, tokens).
        real: which of all tokens are no padding, (batch, tokens); None where all are.
    """

    ids: list[Int[Tensor, "batch tokens"]] = field(default_factory=list)
    real: Bool[Tensor, "batch tokens"] | None = None

    def of(self, item: int) -> list[int]:
        """The real tokens of one sequence, from the first to the last."""
        whole = torch.cat([part[item] for part in self.ids]).tolist()
        inside = self.real_range(item, len(whole))
        return [int(i) for i in whole[inside.start : inside.stop]]

    def real_range(self, item: int, count: int) -> range:
        """Where the real tokens of a sequence stand among so many."""
        if self.real is None:
            return range(count)
        real = self.real[item]
        places = real[max(0, len(real) - count) :].nonzero()[:, 0]  # a mask may begin with tokens of an earlier cache
        if not len(places):
            return range(count)
        grown = count if self.real.shape[1] < count else 0  # tokens that came after the mask was given are real
        return range(int(places[0]), max(int(places[-1]) + 1, grown))

    def ranges(self, count: int) -> list[range]:
        """`real_range` of every sequence."""
        return [self.real_range(item, count) for item in range(0 if self.real is None else len(self.real))]


@dataclass(eq=False)
class Reader:
    """Sees what a model is called with.

    Attributes:
        tokens: what it reads; of an encoder-decoder, its encoder.
        target: what an encoder-decoder's decoder reads.
        seen: the runs that were given pictures.
        failed: whether a run ended with an exception.
    """

    recorder: Recorder
    encoder_decoder: bool
    tokens: Read = field(default_factory=Read)
    target: Read = field(default_factory=Read)
    seen: list[Seen] = field(default_factory=list)
    failed: bool = False
    _depth: int = 0

    @contextlib.contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        """See each run of the model, or of a part of it that is run by itself, such as an encoder."""
        with contextlib.ExitStack() as undo:
            for module in model.modules():
                if isinstance(module, PreTrainedModel):
                    undo.callback(module.register_forward_pre_hook(self._before, with_kwargs=True).remove)
                    undo.callback(module.register_forward_hook(self._after, always_call=True).remove)
            yield

    def _before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.recorder.is_elsewhere() or self.recorder.owners.is_reading:
            return
        self._depth += 1
        if self._depth > 1:
            return
        names = list(inspect.signature(module.forward).parameters)
        given = dict(zip(names, args, strict=False)) | kwargs
        batch = next((len(given[name]) for name in BATCHED if isinstance(given.get(name), torch.Tensor)), None)
        self.recorder.begin_run(batch)
        self.recorder.owners.begin_run(Running(module, args, kwargs))
        self._read(given)
        seen = Seen.of(module.config, given)
        if seen is not None:
            self.seen.append(seen)

    def _after(self, module: Any, args: Any, output: Any) -> None:
        if not self.recorder.is_elsewhere() and not self.recorder.owners.is_reading:
            self._depth -= 1
            self.failed |= output is None  # which no model gives; the hook is called after an exception too
            if not self._depth:
                self.recorder.owners.end_run()

    def _read(self, given: dict[str, Any]) -> None:
        ids, mask = given.get("input_ids"), given.get("attention_mask")
        if isinstance(ids, torch.Tensor) and given.get("encoder_outputs") is None:
            self.tokens.ids.append(ids.detach().cpu())
        if isinstance(mask, torch.Tensor) and mask.ndim == 2:
            self.tokens.real = self.recorder.real["tokens"] = mask.detach().cpu().bool()
            if not self.encoder_decoder:  # text that looks at pictures
                self.recorder.targets = self.tokens.ranges(mask.shape[1])
        target, target_mask = given.get("decoder_input_ids"), given.get("decoder_attention_mask")
        if isinstance(target, torch.Tensor):
            self.target.ids.append(target.detach().cpu())
        if isinstance(target_mask, torch.Tensor) and target_mask.ndim == 2:
            self.target.real = self.recorder.real["target"] = target_mask.detach().cpu().bool()
            self.recorder.targets = self.target.ranges(target_mask.shape[1])
