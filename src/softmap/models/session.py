"""One recording from its beginning to its end: the recorder and the reader on a model, and what becomes of each layer."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from softmap import __version__
from softmap.decoding import tokens_of_ids
from softmap.errors import ModelError, ParameterError
from softmap.models.casting import undisturbed
from softmap.models.interface import look, standing_in, watch
from softmap.models.keeping import Keeping, keep
from softmap.models.options import tokenizer_of
from softmap.models.pictures import normalisation_of, pictures_of, that_fit
from softmap.models.reading import Reader
from softmap.models.recorder import Recorder
from softmap.models.turns import Turns
from softmap.recorded import Origin, OtherLayer, RecordedLayer, RecordedSequence, Recording

if TYPE_CHECKING:
    from torch import nn

    from softmap.models.growing import Growing
    from softmap.models.load import LoadedModel
    from softmap.recorded import Picture
    from softmap.recorded.layer import Text
    from softmap.recorded.storage import Writer
    from softmap.tokens import Tokens


NO_TEXT = re.compile(r"vision|visual|image|audio|speech", re.IGNORECASE)
"""Paths of towers whose tokens are patches or frames, though there may be as many of them as the text has tokens."""


class Session:
    """One recording from its beginning to its end."""

    def __init__(
        self,
        loaded: LoadedModel,
        keeping: Keeping,
        tokens: Tokens | None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        single_run: bool = False,
        any_thread: bool = False,
    ) -> None:
        model = loaded.model
        self.single_run = single_run
        self.loaded, self.given, self.progress = loaded, tokens, progress
        self.tokenizer = tokenizer_of(loaded)
        self.writer: Writer | None = None  # what each layer is handed to as soon as it is complete
        self.sight = look(model, loaded.name)
        self.encoder_decoder = bool(model.config.is_encoder_decoder)
        paths = {module: path for path, module in model.named_modules()}
        self.turns = Turns(loaded.name, any_thread)
        self.recorder = Recorder(loaded.name, paths, keeping, self.turns, self._settled, copies=not single_run)
        self.watch = watch(model, self.sight, self.recorder)
        self.count = len(self.sight.seen)
        self.reader = Reader(self.recorder, self.encoder_decoder)
        self.turns.forget = self._forget
        self.done: dict[int, list[RecordedLayer]] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        model = self.loaded.model
        with standing_in(model, self.recorder), self.reader.watching(model), self.watch.watching(model):
            self.turns.open(self.recorder.paths)
            try:
                yield
            finally:
                self.turns.close()

    @property
    def others(self) -> tuple[OtherLayer, ...]:
        """What the recording does not hold."""
        return *self.sight.others, *self.watch.others(self.recorder.paths)

    def recording(self) -> Recording:
        """What there is after the run.

        Raises:
            ModelError: nothing ran, or not every layer was seen.
        """
        with undisturbed(self.loaded.model.device.type):
            return self._put_together()

    def _put_together(self) -> Recording:
        self._check_seen()
        self.recorder.finish()
        for number, (key, layers) in enumerate(self.recorder.layers.items()):
            if number not in self.done and self._kept(number):
                self.done[number] = self._recorded(number, key, layers)
        batch = len(next(iter(self.recorder.layers.values())))
        pictures = self._pictures(batch)
        sequences = tuple(
            RecordedSequence(
                layers=tuple(layers[item] for _, layers in sorted(self.done.items())),
                tokens=self._tokens(item),
                target=self._target(item),
                pictures=tuple(pictures[item]),
            )
            for item in range(batch)
        )
        return Recording(self.origin(), tuple(map(_with_its_texts, sequences)), self.others)

    def _forget(self) -> None:
        self.recorder.forget()
        self.reader.forget()
        self.watch.forget()

    def _settled(self, number: int, layers: list[Growing]) -> None:
        """A layer is complete for this run of the model; where no other run follows, only what is kept of it stays."""
        done = len(self.recorder.layers)
        self.progress(done, max(done, self.count))
        if not self.single_run or number in self.done:
            return
        key = list(self.recorder.layers)[number]
        self.done[number] = self._recorded(number, key, layers)
        if self.writer is not None:
            try:
                self.done[number] = self.writer.add(self.done[number])
            except OSError as error:
                raise self.writer.refused(error) from error
        for growing in layers:
            growing.forget()

    def _kept(self, number: int) -> bool:
        chosen = self.recorder.keeping.layers
        return chosen is None or number in chosen

    def _recorded(self, number: int, key: tuple[nn.Module, int], layers: list[Growing]) -> list[RecordedLayer]:
        cross = self.recorder.crossing[key]
        found = []
        for item, growing in enumerate(layers):
            part = self._part(growing, cross)
            side: Text = "target" if self.encoder_decoder and part == "decoder" else "tokens"
            about = {"number": number, "kind": "cross" if cross else "self", "part": part}
            layer = keep(growing, self.recorder.keeping, self.loaded.name, **about)
            queries, keys = self._count(side, item), self._count("tokens" if cross else side, item)
            of_text = NO_TEXT.search(growing.path) is None
            keys_of_text = of_text and (self.encoder_decoder or not cross)  # else it looks at pictures or sounds
            found.append(
                replace(
                    layer,
                    queries_of=side if of_text and queries == layer.shape[1] else None,
                    keys_of=("tokens" if cross else side) if keys_of_text and keys == layer.shape[2] else None,
                )
            )
        return found

    def _part(self, growing: Growing, cross: bool) -> Any:
        if self.encoder_decoder:
            return "decoder" if "decoder" in growing.path.lower() else "encoder"
        return "decoder" if cross or growing.is_decoders else "encoder"

    def _count(self, side: Text, item: int) -> int | None:
        """How many real tokens a text has so far."""
        if side == "tokens" and self.given is not None:
            return len(self.given)
        read = getattr(self.reader, side)
        return len(read.of(item)) if read.ids and item < len(read.ids[0]) else None

    def _tokens(self, item: int) -> Tokens | None:
        if self.given is not None:
            return self.given
        read = self.reader.tokens
        return tokens_of_ids(read.of(item), self.tokenizer) if self._count("tokens", item) else None

    def _target(self, item: int) -> Tokens | None:
        read = self.reader.target
        return tokens_of_ids(read.of(item), self.tokenizer) if self._count("target", item) else None

    def _pictures(self, batch: int) -> list[list[Picture]]:
        """The pictures of each sequence, where one run of the model saw them all."""
        if len(self.reader.seen) != 1:
            return [[] for _ in range(batch)]
        read, loaded = self.reader.tokens, self.loaded
        texts = [read.of(item) for item in range(batch)] if read.ids and batch == len(read.ids[0]) else []
        normalisation = normalisation_of(loaded.tokenizer, loaded.name)
        return pictures_of(self.reader.seen[0], loaded.model, texts, batch, normalisation)

    def _check_seen(self) -> None:
        """Refuse a run of which some attention was not seen, rather than leave it out."""
        name = self.loaded.name
        self.turns.check(self.recorder.paths)
        if not self.recorder.layers:
            got = f"none in {type(self.loaded.model).__name__}"
            hint = f"Call the model in the block.{self.turns.waiting()}"
            raise ModelError(name, "a run of the model with attention in it", got, hint)
        ran = [module for module, visits in self.recorder.visits.items() if visits]
        seen = {module for module, _ in self.recorder.layers}
        unseen = [self.recorder.paths[module] for module in ran if not any(part in seen for part in module.modules())]
        if unseen:
            hint = "They ran and did not call the attention function that the model was set to."
            raise ModelError(name, "every attention layer to be seen", f"not {', '.join(unseen[:6])}", hint)
        if self.reader.failed:
            hint = "Its layers do not belong together any more; record anew."
            raise ModelError(name, "runs of the model that end well", "one that failed", hint)
        chosen = self.recorder.keeping.layers
        missing = sorted(set(chosen or ()) - set(range(len(self.recorder.layers))))
        if missing:
            expected = f"numbers from 0 to {len(self.recorder.layers) - 1}"
            raise ParameterError(
                "layers", expected, ", ".join(map(str, missing)), "Layers count in the order they run."
            )

    def origin(self) -> Origin:
        model, kept = self.loaded.model, self.recorder.keeping.dtype
        dtype = str(self.recorder.cast or model.dtype).removeprefix("torch.")
        packages = {"softmap": __version__, "torch": torch.__version__, "transformers": version("transformers")}
        return Origin(
            model=self.loaded.name,
            architecture=type(model).__name__,
            revision=self.loaded.revision,
            dtype=dtype,
            stored=dtype if kept is None else str(kept).removeprefix("torch."),
            versions=packages,
        )


def _with_its_texts(sequence: RecordedSequence) -> RecordedSequence:
    """A sequence with the texts that some of its layers have as queries or keys: others do not cover what was run.

    Likewise with the places of its pictures.
    """
    of = {text for layer in sequence.layers for text in (layer.queries_of, layer.keys_of)}
    return replace(
        sequence,
        tokens=sequence.tokens if "tokens" in of else None,
        target=sequence.target if "target" in of else None,
        pictures=that_fit(sequence.pictures, sequence.layers),
    )
