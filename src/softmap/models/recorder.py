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
from softmap.mechanism import PAGE
from softmap.models.attending import Call, Piece, attend, rows_to_compare, tolerance
from softmap.models.continuing import Run, key_in_cache
from softmap.models.growing import Block, Growing
from softmap.models.implementations import kind_of
from softmap.models.keeping import wanted_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from softmap.models.keeping import Keeping
    from softmap.models.turns import Turns

LayerKey = tuple["nn.Module", int]


class Side(NamedTuple):
    """The positions that a call's queries and keys have in one sequence, and which of the queries are real tokens."""

    rows: range
    keys: range
    own: range | None


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
        self.left_out.clear()
        self._run += 1
        self.run = run
        if None not in (self.batch, run.batch) and run.batch != self.batch:
            raise ModelError(self.name, f"{self.batch} sequences in each run of the model", *run.refuse_batch())
        self.batch = self.batch or run.batch

    def enter(self, module: nn.Module) -> None:
        """An attention layer begins to run. Called by itself, a second time, it begins another run of the model."""
        if not self.turns.is_running() and self.visits.get(module):
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
        key, again = self._key(call.module)
        layer = self._layer(key, call)
        keep = self._wants(key)
        output = call.q.new_zeros(*call.q.shape[:3], call.v.shape[3])
        items = call.q.shape[0]
        apart = again or (self.batch == 1 and items > 1)  # pictures of one sequence, each of which sees itself alone
        for item in range(items):
            growing = layer[0 if apart else item]
            beside = apart and (again or item > 0)
            if again and call.positions is not None:
                got = "several in one run of the layer, on the same tokens"
                hint = f"{type(call.module).__name__} makes its output of more than one softmax attention."
                raise ModelError(f"{self.name}, {path}", "one attention", got, hint)
            side = self._side(call, growing, item, beside, crossing=self.crossing[key])
            piece = call.piece(item, side.rows, side.keys, side.own, shared=self.shared)
            if (piece.rows, piece.keys) != (side.rows, side.keys):  # padding is computed, since some models pool there
                whole = call.piece(item, side.rows, side.keys, trim=False, shared=self.shared)
                output[item] = attend(whole, None, whole.problem)[0]
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
            if call.q.shape[0] != self.batch and self.batch != 1:
                got = f"{call.q.shape[0]} sequences or pictures where the model was given {self.batch}"
                hint = "softmap can't tell whose they are: record one sequence at a time."
                raise ModelError(f"{self.name}, {self.paths[call.module]}", "one for each sequence", got, hint)
            self.layers[key] = [Growing(call.module, self.paths[call.module]) for _ in range(self.batch)]
            self.crossing[key] = call.module in self.cross
        if call.q.shape[0] != self.batch and self.batch != 1:
            found = replace(self.run, batch=call.q.shape[0])
            path = f"{self.name}, {self.paths[call.module]}"
            raise ModelError(path, f"{self.batch} sequences in each run of the model", *found.refuse_batch())
        return self.layers[key]

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
        if before is not None and keys == len(before.keys) + queries:
            return Side(
                range(before.rows.stop, before.rows.stop + queries),
                range(before.keys.start, before.keys.start + keys),
                None,
            )
        return Side(range(queries), range(keys), None)

    def _take(
        self, call: Call, growing: Growing, item: int, piece: Piece, side: Side, *, beside: bool, keep: bool
    ) -> Tensor:
        """The output of one sequence's part of a call; what is wanted of it is kept."""
        path = f"{self.name}, {growing.path}"
        problem = piece.problem
        if float("inf") in (problem.largest_q, problem.largest_k):
            hint = "The model computes something that is no number there; look at its weights and its dtype."
            raise ModelError(path, "finite numbers in q and k", "NaN or infinity", hint)
        first = not growing.blocks
        wanted = None
        if keep and first and self.keeping.statistics is not None:
            wanted = wanted_of(self.keeping.statistics, problem, piece.v)
        output, swept = attend(piece, wanted, problem)
        self._compare(call, growing, item, piece, side, output, path)
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

    def _compare(
        self, call: Call, growing: Growing, item: int, piece: Piece, side: Side, output: Tensor, path: str
    ) -> None:
        """See how far the output is from that of the model's own function.

        Raises:
            ModelError: it is further than rounding goes.
        """
        first, spans = not growing.blocks, piece.problem.spans
        chosen = rows_to_compare(len(piece.rows), len(piece.keys))
        chosen = chosen[(spans.stop > spans.start)[chosen]]
        if self.keeping.inside and first:
            growing.x = self._entered(call, item, piece, side)
        self._compare_unmasked(call, item, piece, side, output, path)
        own = None
        if len(chosen):
            own = call.own_output(item, side.rows, side.keys, chosen + piece.rows.start - side.rows.start)
        if own is None:
            return
        difference, most = float((output[:, chosen].float() - own).abs().max()), tolerance(piece, own, output.dtype)
        growing.difference = max(difference, growing.difference or 0.0)
        if self.keeping.inside and first:
            growing.own, growing.compared = own, chosen
        if not difference <= most:
            raise _differs(call, path, "the output of the model's own attention function", difference, own)

    def _compare_unmasked(self, call: Call, item: int, piece: Piece, side: Side, output: Tensor, path: str) -> None:
        """Compare a page that came without a mask with what the function that was found gives without one.

        Raises:
            ModelError: it hides other keys.
        """
        if max(output.shape[1], len(piece.keys)) > PAGE or (piece.rows, piece.keys) != (side.rows, side.keys):
            return
        own = call.unmasked_output(item)
        if own is None:
            return
        difference = float((output.float() - own).abs().max())
        if not difference <= tolerance(piece, own, output.dtype):
            raise _differs(call, path, f"the output of {call.implementation}", difference, own)


def _differs(call: Call, path: str, expected: str, difference: float, own: Tensor) -> ModelError:
    got = f"an output that differs by {difference:.1e}, where the largest number is {float(own.abs().max()):.1e}"
    hint = f"{type(call.module).__name__} does something that softmap does not know."
    if (
        isinstance(call.mask, torch.Tensor)
        and call.mask.dtype == torch.bool
        and kind_of(call.implementation) == "eager"
    ):
        hint = (
            "Eager attention adds a bool mask to the scores, as 0 and 1: give one of numbers, or set the model to sdpa."
        )
    return ModelError(path, expected, got, hint)
