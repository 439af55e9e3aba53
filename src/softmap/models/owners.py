"""Whose windows, frames and chunks those are that enter an attention layer as a larger batch than the model was given.

No shape says it: a model may put the windows of one picture after the other, or the first windows of all pictures before
the second ones. So it is shown. The model reads each sequence of the batch by itself once more, and the queries that reach
a layer then are looked for among those that reach it now. Where they are not found in one of these orders, nothing is
said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    Rows = Float[Tensor, "rows tokens features"]

NOT_AGAIN = ("past_key_values", "use_cache", "cache_position")
"""Arguments that a model is not given again: it would write into its cache."""
FEATURES = 4
"""Numbers that stand for a query of a layer where it is looked for."""


class Part(NamedTuple):
    """What of a layer's batch is one sequence's.

    Attributes:
        row: of the batch.
        owner: the sequence.
        tokens: which tokens of the row, where it holds several sequences one after the other; None for all.
    """

    row: int
    owner: int
    tokens: range | None = None


class Running(NamedTuple):
    """A model that runs, and what it was called with."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(eq=False)
class Owners:
    """Which sequence of a batch each row of a layer's batch belongs to, in the present run of a model.

    Attributes:
        running: the outermost model that runs now, and what it was called with.
        calls: how often each module has called its attention function in this run.
        alone: what each sequence by itself brings to each call; None where that was not seen yet.
        reading: the calls of the sequence that is read by itself now.
    """

    running: Running | None = None
    calls: dict[nn.Module, int] = field(default_factory=dict)
    alone: list[dict[tuple[nn.Module, int], Rows]] | None = None
    reading: dict[tuple[nn.Module, int], Rows] | None = None

    @property
    def is_reading(self) -> bool:
        """Whether a sequence is read by itself now, which is no run of the model's own."""
        return self.reading is not None

    def begin_run(self, running: Running) -> None:
        """Forget the run before."""
        self.running, self.alone = running, None
        self.calls.clear()

    def end_run(self) -> None:
        """Let go of what the model was called with."""
        self.running = self.alone = None

    def begin_call(self, module: nn.Module) -> tuple[nn.Module, int]:
        """A call of an attention function, by its module and number."""
        self.calls[module] = self.calls.get(module, -1) + 1
        return module, self.calls[module]

    def read(self, call: tuple[nn.Module, int], q: Tensor) -> None:
        """Keep what a sequence by itself brings to a call."""
        if self.reading is not None:
            self.reading[call] = features(q)

    def of(self, call: tuple[nn.Module, int], q: Float[Tensor, "rows heads tokens d"], batch: int) -> list[Part] | None:
        """The sequence that each row belongs to, or each part of one row; None where it can't be shown."""
        if self.alone is None:
            self.alone = self._read_alone(batch)
        if len(self.alone) != batch:
            return None
        rows, most = features(q), _rounding(q.dtype)
        alone = [found[call] for found in self.alone if call in found]
        orders = (_one_call_each, _rows, _tokens)
        for order in (_everybodys, *orders) if self._gives_one_for_all(batch) else orders:
            found = order(self.alone, alone, call, rows)
            if found is not None and found[0] <= most * float(rows.abs().max()):
                return found[1]
        return None

    def _gives_one_for_all(self, batch: int) -> bool:
        """Whether the model was given one thing for all sequences, as a picture that several texts are compared with."""
        given = () if self.running is None else (*self.running.args, *self.running.kwargs.values())
        return batch > 1 and any(isinstance(x, torch.Tensor) and x.ndim > 1 and len(x) == 1 for x in given)

    def _read_alone(self, batch: int) -> list[dict[tuple[nn.Module, int], Rows]]:
        """Run the outermost module that runs now on each sequence by itself; nothing where it does not take that."""
        if self.running is None:
            return []
        (module, args, kwargs), calls = self.running, self.calls
        kwargs = {name: value for name, value in kwargs.items() if name not in NOT_AGAIN}
        found: list[dict[tuple[nn.Module, int], Rows]] = []
        try:
            with torch.random.fork_rng(devices=_devices(module)):
                for item in range(batch):
                    self.reading, self.calls = {}, {}
                    module(*_only(args, item, batch), **_of_pictures(kwargs, item, batch))
                    found.append(self.reading)
        except Exception:  # whatever a model raises on a part of its inputs: then nothing is shown
            return []
        finally:
            self.reading, self.calls = None, calls
        return found


def features(q: Float[Tensor, "rows heads tokens d"]) -> Rows:
    """A few numbers for each query, which any change of it moves: products with fixed random vectors."""
    _, heads, _, width = q.shape
    vectors = torch.randn(FEATURES, heads, width, generator=torch.Generator().manual_seed(1)).to(q.device)
    return torch.einsum("rhnd,fhd->rnf", q.detach().float(), vectors).cpu()


def _everybodys(whole: list[Any], alone: list[Rows], _: Any, rows: Rows) -> tuple[float, list[Part]] | None:
    """The same rows for each sequence, all of them."""
    if len(alone) != len(whole) or any(part.shape != rows.shape for part in alone):
        return None
    parts = [Part(row, owner) for owner in range(len(alone)) for row in range(len(rows))]
    return max(_distance(rows, part) for part in alone), parts


def _rows(_: Any, alone: list[Rows], __: Any, rows: Rows) -> tuple[float, list[Part]] | None:
    """Whole rows, of one sequence after the other, or of all by turns: how far they are from that, and whose they are."""
    counts = [len(part) for part in alone]
    if sum(counts) != len(rows) or any(part.shape[1:] != rows.shape[1:] for part in alone):
        return None
    orders = [(torch.cat(alone), [item for item, count in enumerate(counts) for _ in range(count)])]
    if len(set(counts)) == 1:
        orders.append((torch.stack(alone, 1).flatten(0, 1), list(range(len(alone))) * counts[0]))
    distance, owners = min(((_distance(rows, order), owners) for order, owners in orders), key=lambda found: found[0])
    return distance, [Part(row, owner) for row, owner in enumerate(owners)]


def _tokens(whole: list[Any], alone: list[Rows], _: Any, rows: Rows) -> tuple[float, list[Part]] | None:
    """One row that holds all sequences, one after the other."""
    if len(alone) != len(whole) or any(len(part) != 1 for part in (rows, *alone)):
        return None
    counts = [part.shape[1] for part in alone]
    if sum(counts) != rows.shape[1]:
        return None
    ends = torch.tensor(counts).cumsum(0).tolist()
    parts = [Part(0, item, range(end - count, end)) for item, (end, count) in enumerate(zip(ends, counts, strict=True))]
    return _distance(rows, torch.cat(alone, 1)), parts


def _one_call_each(
    whole: list[dict[tuple[nn.Module, int], Rows]], _: Any, call: tuple[nn.Module, int], rows: Rows
) -> tuple[float, list[Part]] | None:
    """A call of one sequence only, where a layer calls for each of its windows: those of one sequence after the other."""
    module, number = call
    calls = [(item, part) for item, found in enumerate(whole) for (of, _), part in found.items() if of is module]
    if len(rows) != 1 or number >= len(calls) or calls[number][1].shape != rows.shape:
        return None
    item, part = calls[number]
    return _distance(rows, part), [Part(0, item)]


def _distance(some: Rows, others: Rows) -> float:
    return float((some - others).abs().max())


def _rounding(dtype: torch.dtype) -> float:
    """How far rounding may move numbers of a dtype through some layers, where other rows move them by all they are."""
    return 1e-4 if dtype in (torch.float32, torch.float64) else 0.1


def _devices(module: nn.Module) -> list[torch.device]:
    return sorted({each.device for each in module.parameters() if each.device.type == "cuda"}, key=str)


def _of_pictures(kwargs: dict[str, Any], item: int, batch: int) -> dict[str, Any]:
    """One sequence's part of a model's arguments; of patches in one row, with one picture for each sequence, its own."""
    only: dict[str, Any] = _only(kwargs, item, batch)
    for name, grid in (("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")):
        sizes, patches = kwargs.get(grid), kwargs.get(name)
        if isinstance(sizes, torch.Tensor) and isinstance(patches, torch.Tensor) and len(sizes) == batch:
            ends = [0, *sizes.prod(1).cumsum(0).tolist()]
            only[name] = patches[ends[item] : ends[item + 1]]
    return only


def _only(value: Any, item: int, batch: int) -> Any:
    """Of arguments whose first axis counts the sequences, one sequence's part."""
    if isinstance(value, torch.Tensor):
        return value[item : item + 1] if value.ndim and len(value) == batch else value
    if isinstance(value, Mapping):
        return {name: _only(part, item, batch) for name, part in value.items()}
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(_only(part, item, batch) for part in value)
    return value
