"""What a model is given while it is recorded: token ids and which of them are real, run by run; and pictures."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from softmap.errors import ModelError, SoftmapError
from softmap.models.continuing import PRUNED_SINCE, Run
from softmap.models.entering import watching_calls
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

    def crop(self, count: int, stop: int) -> None:
        """Drop the last tokens, so many, which began at a position."""
        while count > 0 and self.ids:
            last = self.ids.pop()
            if last.shape[1] > count:
                self.ids.append(last[:, : last.shape[1] - count])
            count -= last.shape[1]
        self.real = None if self.real is None else self.real[:, :stop]

    def begins(self, ids: Any) -> bool:
        """Whether these ids begin with all those that were read, and go on."""
        if not self.ids or not isinstance(ids, torch.Tensor) or ids.ndim != 2:
            return False
        whole = torch.cat(self.ids, 1)
        return ids.shape[1] > whole.shape[1] and torch.equal(ids[:, : whole.shape[1]].cpu(), whole)

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
        cache: the cache of the last run that had one.
        cached: how many tokens it held after that run.
    """

    recorder: Recorder
    encoder_decoder: bool
    tokens: Read = field(default_factory=Read)
    target: Read = field(default_factory=Read)
    seen: list[Seen] = field(default_factory=list)
    failed: bool = False
    cache: Any = None
    cached: int = 0

    def forget(self) -> None:
        """Begin anew: what was read is another thread's."""
        self.tokens, self.target, self.failed = Read(), Read(), False
        self.cache, self.cached = None, 0
        self.seen.clear()

    @contextlib.contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        """See each run of the model, or of a part of it that is run by itself, such as an encoder."""
        turns = self.recorder.turns
        with contextlib.ExitStack() as undo:
            for module in model.modules():
                if isinstance(module, PreTrainedModel):
                    undo.enter_context(watching_calls(module, self._before, self._after))
                if hasattr(module, "generate"):
                    undo.enter_context(watching_calls(module, turns.generates, turns.generated, "generate"))
            yield
            lost = self._lost()
            if lost and not self.recorder.is_cropped(self.cache, self.cached - lost):
                got = f"one that has lost {lost} tokens before its end"
                raise ModelError(self.recorder.name, "a cache that is as the last run left it", got, PRUNED_SINCE)
            self._drop_rejected(lost)

    def _before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        turns = self.recorder.turns
        if not turns.enter():
            return
        try:
            with turns.lock:
                self._begin(module, args, kwargs)
        except SoftmapError as error:
            if not turns.keeps(error):
                raise

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.failed:
            hint = "The layers of both do not belong together: open a block for each try."
            raise ModelError(self.recorder.name, "runs of the model that end well", "one after one that failed", hint)
        names = list(inspect.signature(module.forward).parameters)
        given = dict(zip(names, args, strict=False)) | kwargs
        batch = next((len(given[name]) for name in BATCHED if isinstance(given.get(name), torch.Tensor)), None)
        self.recorder.begin_run(self._run(batch, given))
        self.recorder.owners.begin_run(Running(module, args, kwargs))
        asked = given.get("output_attentions")
        self.recorder.weights_asked = bool(module.config.output_attentions if asked is None else asked)
        self._read(given)
        seen = Seen.of(module.config, given)
        if seen is not None:
            self.seen.append(seen)

    def _after(self, module: Any, args: Any, output: Any) -> None:
        turns, owners = self.recorder.turns, self.recorder.owners
        if not turns.leave() or owners.is_reading:
            return
        self.failed |= output is None  # which no model gives, so that it stands for an exception
        if not turns.is_running():
            owners.end_run()
            self.recorder.left_out.clear()  # at the end: generate asks for the masks of a run before it begins
            cache = _cache_of(output)
            if cache is not None:
                self.cache, self.cached = cache, _held(cache)

    def _run(self, batch: int | None, given: dict[str, Any]) -> Run:
        """What a run begins with. Tokens that its cache has lost since the run before are dropped."""
        cache, lost = given.get("past_key_values"), 0
        goes_on = cache is not None and cache is self.cache
        if goes_on:
            lost = self._lost()
            self._drop_rejected(lost)
        kept = 0 if cache is None else _held(cache)
        text = self.target if self.encoder_decoder else self.tokens
        ids = given.get("decoder_input_ids" if self.encoder_decoder else "input_ids")
        encoded = given.get("encoder_outputs") is not None
        generated = self.recorder.turns.goes_on_generating()
        return Run(batch, cache, kept, lost, encoded, repeats=not kept and text.begins(ids), generated=generated)

    def _lost(self) -> int:
        """How many tokens the cache has lost since the last run: drafts that generation rejected, or a crop by hand."""
        left = 0 if self.cache is None else _held(self.cache)
        return max(0, self.cached - left) if left else 0  # an empty one was reset, for another text

    def _drop_rejected(self, lost: int) -> None:
        if lost:
            self.cached -= lost
            (self.target if self.encoder_decoder else self.tokens).crop(lost, self.cached)
            self.recorder.crop(self.cached)

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


def _cache_of(output: Any) -> Any:
    """The cache that a run of a model gives back; None without one."""
    if isinstance(output, tuple):
        return next((each for each in output if hasattr(each, "get_seq_length")), None)
    return getattr(output, "past_key_values", None)


def _held(cache: Any) -> int:
    """How many tokens a cache holds."""
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
