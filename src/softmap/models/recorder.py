"""What a run of a model leaves behind: each attention layer's calls, put together into a recording.

A layer is known by its module and by how often that ran before in the same run of the model (ALBERT runs one module for
all its layers). What a layer's module calls several times in one go stands side by side (a picture of several); what it
calls in the next run of the model continues (a cache).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from softmap.errors import ModelError
from softmap.models.attending import Call, Piece, attend
from softmap.models.comparing import NO_NUMBER, compare
from softmap.models.continuing import Run, key_in_cache
from softmap.models.growing import Block, Growing
from softmap.models.keeping import wanted_of
from softmap.models.owners import Owners, Part

if TYPE_CHECKING:
    from torch import Tensor, nn

    from softmap.kernels.contract import Problem
    from softmap.models.keeping import Keeping
    from softmap.models.turns import Turns

LayerKey = tuple["nn.Module", int]


class Side(NamedTuple):
    """The positions that a call's queries and keys have in one sequence, and which of them are real tokens, if known."""

    rows: range
    keys: range
    own: range | None
    own_keys: range | None = None


@dataclass(eq=False)
class Recorder:
    """One recording while it grows.

    Attributes:
        name: the model, as errors name it.
        paths: the path of each module.
        keeping: what is kept.
        turns: the threads that run the model, one of which is recorded.
        settled: called with each layer's number and what it left of each sequence, when it is complete.
        cross: the modules whose present run looks at another sequence.
        visits: how often each module has run in the present run of the model.
        entered: what entered each layer the last time, where it is kept.
        batch: how many sequences there are; None as long as nobody said.
        targets: the positions of the real tokens that a decoder reads, of each sequence; None where nobody said.
        real: which tokens of the texts "tokens" and "target" are no padding, (batch, tokens), where the model was told.
        owners: whose the rows of a layer's batch are, where they are more than the sequences.
        shared: what was made of a mask of this run, for all layers that are handed the same.
        found: the attention function that the model was set to.
        left_out: positions of the queries and keys of masks that this run goes without, by configuration and sizes.
        copies: whether q, k and v are copied, since a cache may write over them later.
        run: the present run of the model.
        cast: the dtype that autocast had the last layer compute in; None without it.
        weights_asked: whether the present run is asked for its attention weights.
    """

    name: str
    paths: Mapping[nn.Module, str]
    keeping: Keeping
    turns: Turns
    settled: Callable[[int, list[Growing]], None] | None = None
    cross: set[nn.Module] = field(default_factory=set)
    visits: dict[nn.Module, int] = field(default_factory=dict)
    batch: int | None = None
    targets: list[range] | None = None
    real: dict[str, Tensor] = field(default_factory=dict)
    owners: Owners = field(default_factory=Owners)
    shared: dict[Any, Any] = field(default_factory=dict)
    found: str | None = "softmap"
    left_out: dict[tuple[int, int, int], tuple[range, range]] = field(default_factory=dict)
    copies: bool = True
    run: Run = field(default_factory=Run)
    cast: torch.dtype | None = None
    weights_asked: bool = False
    layers: dict[LayerKey, list[Growing]] = field(default_factory=dict)
    entered: dict[nn.Module, Tensor] = field(default_factory=dict)
    crossing: dict[LayerKey, bool] = field(default_factory=dict)
    _last: LayerKey | None = None
    _last_visit: tuple[LayerKey, int] | None = None
    _run: int = 0

    def forget(self) -> None:
        """Begin anew: what was recorded is another thread's."""
        for each in (self.cross, self.visits, self.shared, self.layers, self.entered, self.crossing):
            each.clear()
        self.batch = self.targets = self._last = self._last_visit = None
        self.run = Run()

    def begin_run(self, run: Run) -> None:
        """The model begins to run.

        Raises:
            ModelError: on another number of sequences than before.
        """
        self.visits.clear()
        self.shared.clear()
        self.real.clear()
        self._run += 1
        self.run = run
        if None not in (self.batch, run.batch) and run.batch != self.batch:
            raise ModelError(self.name, f"{self.batch} sequences in each run of the model", *run.refuse_batch())
        self.batch = self.batch or run.batch

    def enter(self, module: nn.Module) -> None:
        """An attention layer begins to run. Called by itself, a second time, it begins another run of the model."""
        if not self.turns.is_running() and self.visits.get(module):
            self.left_out.clear()
            self.begin_run(Run())
        self.visits[module] = self.visits.get(module, 0) + 1

    def is_cropped(self, cache: Any, stop: int) -> bool:
        """Whether a cache still ends with the key of this position, so that it lost what came after it."""
        for (module, _), layer in self.layers.items():
            for item, each in enumerate(layer):
                key = key_in_cache(cache, getattr(module, "layer_idx", None), item, stop - 1)
                grows = each.blocks and each.is_decoders and not self.crossing[module, 0]
                if key is not None and grows and not each.blocks[-1].may_have(stop - 1, key):
                    return False
        return True

    def crop(self, stop: int) -> None:
        """Drop what was recorded from a position on, in the layers that go on token by token."""
        grown = [(key, each) for key, layer in self.layers.items() for each in layer if each.blocks]
        own = [each for key, each in grown if not self.crossing[key] and each.is_decoders]
        ends = {each.blocks[-1].rows.stop for each in own}
        cross = [each for key, each in grown if self.crossing[key] and each.blocks[-1].rows.stop in ends]
        for each in own:
            each.crop(stop, keys=True)
        for each in cross:
            each.crop(stop, keys=False)

    def saw(self, module: nn.Module, given: Mapping[str, Any]) -> None:
        """What an attention layer is called with."""
        x = given.get("hidden_states", next(iter(given.values()), None))
        if self.keeping.inside and isinstance(x, torch.Tensor):
            self.entered[module] = x.detach()

    def attend(self, call: Call) -> Tensor:
        """The output of a call, (batch, heads, queries, d_v), of which what is wanted is kept.

        Raises:
            ModelError: attention that softmap does not know, or a call that does not fit those before it.
        """
        path = self.paths[call.module]
        call.check(f"{self.name}, {path}")
        number = self.owners.begin_call(call.module)
        key, again = self._key(call.module)
        layer = self._layer(key, call)
        keep = self._wants(key)
        output = call.q.new_zeros(*call.q.shape[:3], call.v.shape[3])
        parts, seen = self._parts(number, call), set[int]()
        alone = again or len(parts) > self._sequences  # each sees itself alone
        for item, owner, tokens in parts:
            growing, beside = layer[owner], again or (alone and owner in seen)
            seen.add(owner)
            if again and call.positions is not None:
                got = "several in one run of the layer, on the same tokens"
                hint = f"{type(call.module).__name__} makes its output of more than one softmax attention."
                raise ModelError(f"{self.name}, {path}", "one attention", got, hint)
            side = self._side(call, growing, owner, beside, crossing=self.crossing[key])
            if tokens is not None:
                side = self._packed(call, side, tokens, f"{self.name}, {path}")
            elif not alone:
                side = self._without_padding(call, item, side, path, crossing=self.crossing[key])
            piece = call.piece(item, side.rows, side.keys, side.own, side.own_keys, shared=self.shared)
            trimmed = (piece.rows, piece.keys) != (side.rows, side.keys)
            if trimmed and tokens is None:  # padding is computed, since some models pool there
                whole = call.piece(item, side.rows, side.keys, trim=False, shared=self.shared)
                output[item] = attend(whole, None, _finite(whole.problem, f"{self.name}, {path}"))[0]
            if not piece.rows or not piece.keys:
                continue  # padding alone
            own_rows = slice(piece.rows.start - side.rows.start, piece.rows.stop - side.rows.start)
            output[item, :, own_rows] = self._take(call, growing, item, piece, side, beside=beside, keep=keep)
        return output

    def finish(self) -> None:
        """The last layer is complete too."""
        self._settle(self._last)

    def _key(self, module: nn.Module) -> tuple[LayerKey, bool]:
        """The layer that calls, and whether it has called before in this run of its module."""
        visit = self.visits.get(module, 0)
        key = module, max(0, visit - 1)
        now = key, self._run
        again = self._last_visit == now and visit > 0
        if visit == 0:  # no hook tells how often it ran: each call is a run of it
            self.visits[module] = 1
        self._last_visit = now
        return key, again

    def _layer(self, key: LayerKey, call: Call) -> list[Growing]:
        if self._last is not None and self._last != key:
            self._settle(self._last)
        self._last = key
        if key not in self.layers:
            self.batch = self.batch or call.q.shape[0]
            self.layers[key] = [Growing(call.module, self.paths[call.module]) for _ in range(self.batch)]
            self.crossing[key] = call.module in self.cross
        return self.layers[key]

    @property
    def _sequences(self) -> int:
        return self.batch or 1

    def _parts(self, number: tuple[nn.Module, int], call: Call) -> list[Part]:
        """What of a call's batch is each sequence's.

        Raises:
            ModelError: there are others than sequences, and whose they are can't be shown.
        """
        rows = call.q.shape[0]
        if self._sequences in (rows, 1):
            return [Part(row, row if rows == self._sequences else 0) for row in range(rows)]
        parts = self.owners.of(number, call.q, self._sequences)
        path = f"{self.name}, {self.paths[call.module]}"
        if parts is None and self.owners.running is None and self._run > 0:  # parts of the model, run by hand
            found = replace(self.run, batch=rows)
            raise ModelError(path, f"{self._sequences} sequences in each run of the model", *found.refuse_batch())
        if parts is None:
            got = f"{rows} sequences, windows or pictures where the model was given {self._sequences}"
            hint = "softmap can't show whose they are: record one sequence at a time."
            raise ModelError(path, "one for each sequence", got, hint)
        return parts

    def _packed(self, call: Call, side: Side, tokens: range, path: str) -> Side:
        """Where the tokens of a sequence stand in a row that holds several.

        Raises:
            ModelError: they see those of others.
        """
        if len(side.rows) != len(side.keys) or not call.hides(0, side.rows, side.keys, (tokens, tokens)):
            hint = "Record one sequence at a time."
            raise ModelError(path, "sequences that see themselves only", "one that may see another", hint)
        return side._replace(own=tokens, own_keys=tokens)

    def _settle(self, key: LayerKey | None) -> None:
        """Hand over a layer whose calls in this run are over."""
        if (
            key is not None
            and self.settled is not None
            and self._wants(key)
            and any(each.blocks for each in self.layers[key])
        ):
            self.settled(self._number(key), self.layers[key])

    def _number(self, key: LayerKey) -> int:
        return list(self.layers).index(key)

    def _wants(self, key: LayerKey) -> bool:
        return self.keeping.layers is None or self._number(key) in self.keeping.layers

    def _side(self, call: Call, growing: Growing, item: int, beside: bool, *, crossing: bool) -> Side:
        """Where the queries and keys of a call stand."""
        queries, keys = call.q.shape[2], call.k.shape[2]
        before = growing.blocks[-1] if growing.blocks and not beside else None
        if crossing:
            own = self.targets[item] if self.targets is not None and before is None else None
            first = before.rows.stop if before else 0
            key_range = call.positions[1] if call.positions else range(keys)
            return Side(range(first, first + queries), key_range, own or range(first, first + queries))
        if call.positions is not None:
            return Side(*call.positions, None)
        if before is not None and before.keys.start and keys == before.keys.stop + queries:  # padding was left out
            return Side(range(before.keys.stop, keys), range(keys), None)
        if before is not None and keys == len(before.keys) + queries:
            return Side(
                range(before.rows.stop, before.rows.stop + queries),
                range(before.keys.start, before.keys.start + keys),
                None,
            )
        return Side(range(queries), range(keys), None)

    def _without_padding(self, call: Call, item: int, side: Side, path: str, *, crossing: bool) -> Side:
        """The same, knowing which tokens are real, where a mask that the model made itself hides the others."""
        target = not crossing and "target" in self.real and "decoder" in path.rpartition(", ")[2].lower()
        real = self.real.get("target" if target else "tokens")
        if not isinstance(call.mask, torch.Tensor) or real is None or real.shape != (call.q.shape[0], side.keys.stop):
            return side
        places = real[item].nonzero()[:, 0]
        if not len(places) or side.keys.start:
            return side
        of_keys = range(int(places[0]), int(places[-1]) + 1)
        rows = side.own if crossing else of_keys
        if rows is None or (not crossing and side.rows.stop != side.keys.stop):
            return side
        hidden = call.hides(item, side.rows, side.keys, (rows, of_keys))
        return side._replace(own=rows, own_keys=of_keys) if hidden else side

    def _take(
        self, call: Call, growing: Growing, item: int, piece: Piece, side: Side, *, beside: bool, keep: bool
    ) -> Tensor:
        """The output of one sequence's part of a call; what is wanted of it is kept."""
        path = f"{self.name}, {growing.path}"
        problem = _finite(piece.problem, path, piece.v)
        first = not growing.blocks
        wanted = None
        if keep and first and self.keeping.statistics is not None:
            wanted = wanted_of(self.keeping.statistics, problem, piece.v)
        output, swept = attend(piece, wanted, problem)
        inside = first and self.keeping.inside
        if inside:
            growing.x = self._entered(call, item, piece, side)
        compared = compare(call, item, piece, side.rows, side.keys, output, path)
        if compared is not None:
            growing.difference = max(compared.difference, growing.difference or 0.0)
            if inside:
                growing.own, growing.compared = compared.own, compared.chosen
        if first and growing.own is not None and growing.own.shape[1] == output.shape[1]:
            output = growing.own.to(output.dtype)  # for its story the model runs as it does by itself
        if first or beside:
            growing.blocks.append(Block())
        growing.swept = swept if first and wanted is not None else None
        assert self._last is not None  # the layer that calls
        others = [each.blocks[-1] for each in self.layers[self._last] if each is not growing and each.blocks]
        growing.blocks[-1].check(piece, path, self.run, others)
        growing.blocks[-1].add(piece, keep=keep, values=self.keeping.values, copy=self.copies)
        return output

    def _entered(self, call: Call, item: int, piece: Piece, side: Side) -> Tensor | None:
        """What entered the layer, of one sequence's real tokens."""
        x = self.entered.get(call.module)
        if x is None or x.ndim != 3 or x.shape[:2] != (call.q.shape[0], call.q.shape[2]):
            return None
        return x[item, piece.rows.start - side.rows.start : piece.rows.stop - side.rows.start]


def _finite(problem: Problem, path: str, v: Tensor | None = None) -> Problem:
    """The problem.

    Raises:
        ModelError: q or k has NaN or infinity, or v where it is given.
    """
    if float("inf") in (problem.largest_q, problem.largest_k):
        raise ModelError(path, "finite numbers in q and k", "NaN or infinity", NO_NUMBER)
    if v is not None and not torch.isfinite(v).all():
        raise ModelError(path, "finite numbers in v", "NaN or infinity", NO_NUMBER)
    return problem
