"""What a model asks a mask for -> which query may see which key, as softmap's masks, without a tensor of their size.

``transformers`` composes masks from small functions of (batch, head, query, key), its positions counted from the start
of the sequence (https://huggingface.co/docs/transformers/attention_interface). `ModelMask` keeps what was asked, and the
models hand it through to the attention function. The functions of the library are known here by name, so that whole
blocks of keys can be skipped; what was made of them is compared with the functions themselves on some rows. Any other
function is asked strip by strip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import getclosurevars
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers.masking_utils import eager_mask, sdpa_mask

from softmap import masks
from softmap.masks.stacked import Run, Stacked
from softmap.models.tensorlike import TensorLike

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

    from softmap.masks import Mask

    MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

NEVER_SKIPPED = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
"""Options of a mask function by which it makes a mask where none is needed too."""
SAMPLE = 8
"""Rows on which a mask is compared with the function that it was made of."""


@dataclass(frozen=True, eq=False)
class ModelMask(TensorLike):
    """A mask as a model asked for it, of a whole batch. Positions count from the start of the sequence.

    Attributes:
        rows: the positions of the queries.
        keys: the positions of the keys.
        function: whether a query sees a key, f(batch, head, query, key) over index tensors.
        valid: which keys are real tokens, (batch, positions), or None for all; beyond its end none is.
        by_element: whether the function wants single numbers, not tensors of them.
        model: the kind of model that asks, as errors name it.
        batch: how many sequences there are, where `valid` does not say it.
        dtype: that of the tensor that the model's own mask function would make.
        device: where that would be.
        asked: all that it asks with, of which a mask function makes its tensor; empty where nobody knows.
    """

    rows: range
    keys: range
    function: MaskFunction
    valid: Bool[Tensor, "batch positions"] | None
    by_element: bool
    model: str = "the model"
    batch: int = 1
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # it never changes
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> torch.Size:
        """That of the tensor: (batch, 1, queries, keys)."""
        return self.outline.shape

    @property
    def outline(self) -> Tensor:
        batch = self.batch if self.valid is None else len(self.valid)
        return torch.empty(batch, 1, len(self.rows), len(self.keys), dtype=self.dtype, device="meta")

    def make(self) -> Tensor:
        of_booleans = self.dtype == torch.bool
        if self.asked:
            make: Callable[..., Any] = sdpa_mask if of_booleans else eager_mask
            made: Tensor = make(**{"batch_size": 1, **self.asked, **NEVER_SKIPPED})
            return made
        seen = self.seen().to(self.device)
        if of_booleans:
            return seen
        return torch.zeros_like(seen, dtype=self.dtype).masked_fill(~seen, torch.finfo(self.dtype).min)

    def seen(self) -> Bool[Tensor, "batch 1 queries keys"]:
        """Which query sees which key, of every sequence: a matrix."""
        query = torch.arange(self.rows.start, self.rows.stop)[:, None]
        key = torch.arange(self.keys.start, self.keys.stop)
        each = [
            self.visible(item, query, key) & self.padding(item, self.keys).visible(query, key - self.keys.start)
            for item in range(self.shape[0])
        ]
        return torch.stack(each)[:, None]

    def added_to(self, numbers: Tensor) -> Tensor:
        """A model's own bias with this mask, as numbers to add to the scores; itself where nothing is hidden.

        Raises:
            ModelError: it would be larger than a page.
        """
        full = all(
            repr(both(self.rule(item).build(self.rows, self.keys), self.padding(item, self.keys))) == "full()"
            for item in range(self.shape[0])
        )
        if full:
            return numbers
        self.refuse_beyond_a_page("a bias added to it, in the place")
        hidden = ~self.seen().to(numbers.device)
        return numbers + torch.zeros_like(hidden, dtype=numbers.dtype).masked_fill(
            hidden, torch.finfo(numbers.dtype).min
        )

    def valid_range(self, item: int) -> range:
        """The positions from the first real token of a sequence to its last; all, where nothing is said of them."""
        if self.valid is None:
            return range(self.keys.stop)
        places = self.valid[item].nonzero()
        return range(int(places[0]), int(places[-1]) + 1) if len(places) else range(0)

    def rule(self, item: int) -> Rule:
        """The rule of one sequence, apart from padding."""
        return _rule_of(self.function, item) or self.asking(item)

    def padding(self, item: int, keys: range) -> Mask:
        """The mask of those keys that are no real tokens."""
        if self.valid is None:
            return masks.full()
        valid = torch.zeros(len(keys), dtype=torch.bool)
        known = self.valid[item, keys.start : keys.stop].cpu()
        valid[: len(known)] = known
        return masks.full() if bool(valid.all()) else masks.padding(valid)

    def visible(self, item: int, query: Tensor, key: Tensor) -> Bool[Tensor, "*shape"]:
        """What the function itself says, padding apart, for positions that broadcast."""
        batch, head = query.new_tensor(item), query.new_tensor(0)
        if not self.by_element:
            return self.function(batch, head, query, key).cpu().expand(torch.broadcast_shapes(query.shape, key.shape))
        query, key = torch.broadcast_tensors(query, key)
        one = torch.vmap(lambda q, k: self.function(batch, head, q, k).reshape(()))
        return one(query.reshape(-1), key.reshape(-1)).cpu().reshape(query.shape)

    def asking(self, item: int) -> Rule:
        """The rule that asks the function itself, strip by strip."""

        def build(rows: range, keys: range) -> Mask:
            def f(query_index: Tensor, key_index: Tensor) -> Tensor:
                return self.visible(item, query_index + rows.start, key_index + keys.start)

            f.__name__ = getattr(self.function, "__name__", "mask_function")
            return masks.from_function(f)

        return Rule(("function", id(self.function), item), build)


class Rule(NamedTuple):
    """Which key a query may see by their positions.

    Attributes:
        name: what tells it from others: two rules of one name are the same.
        build: makes the mask of consecutive queries and keys.
    """

    name: tuple[Any, ...]
    build: Callable[[range, range], Mask]


EVERYTHING = Rule(("everything",), lambda rows, keys: masks.full())
CAUSAL = Rule(("causal",), lambda rows, keys: masks.causal(rows.start - keys.start))


def dense_rule(visible: Bool[Tensor, "queries keys"], rows: range, keys: range) -> Rule:
    """The rule of a matrix that the model made itself, for these rows and keys."""

    def build(some_rows: range, some_keys: range) -> Mask:
        inside = visible[some_rows.start - rows.start : some_rows.stop - rows.start]
        inside = inside[:, some_keys.start - keys.start : some_keys.stop - keys.start]
        if bool(inside.all()):
            return masks.full()
        triangle = torch.equal(inside, ~later_keys(some_rows, some_keys, inside.device))
        return masks.causal(some_rows.start - some_keys.start) if triangle else masks.dense(inside)

    name: tuple[Any, ...] = ("dense", id(visible))
    return Rule(("and", CAUSAL.name, name) if hides_later(visible, rows, keys) else name, build)


def hides_later(visible: Bool[Tensor, "*heads queries keys"], rows: range, keys: range) -> bool:
    """Whether a matrix hides all later keys from each query, and is not just too early to have any."""
    later = later_keys(rows, keys, visible.device)
    return (rows.start > 0 or bool(later.any())) and not bool((visible & later).any())


def later_keys(rows: range, keys: range, device: torch.device) -> Bool[Tensor, "queries keys"]:
    """Which keys come after each query."""
    query, key = (torch.arange(some.start, some.stop, device=device) for some in (rows, keys))
    return key > query[:, None]


def join(rules: Sequence[tuple[range, range, Rule]], keys: range) -> Mask:
    """The mask of consecutive queries and all these keys, where runs of queries came one after the other.

    Args:
        rules: the positions of each run's queries, of the keys that there were by then, and the run's rule.
        keys: the positions of all keys.
    """
    merged: list[tuple[range, range, Rule]] = []
    for rows, known, rule in rules:
        same = merged and merged[-1][2].name == rule.name and (known.stop == merged[-1][1].stop or looks_back(rule))
        first = merged.pop()[0].start if same else rows.start
        merged.append((range(first, rows.stop), known, rule))
    runs = tuple(
        Run(len(rows), range(0, known.stop - keys.start), rule.build(rows, range(keys.start, known.stop)))
        for rows, known, rule in merged
    )
    if len(runs) == 1 and len(runs[0].keys) == len(keys):
        return runs[0].mask
    return Stacked(runs, merged[0][0].start - keys.start)


def both(one: Mask, other: Mask) -> Mask:
    """What both let through, without a composition where one of them lets everything."""
    if repr(one) == "full()":
        return other
    return one if repr(other) == "full()" else one & other


def looks_back(rule: Rule) -> bool:
    """Whether no query sees a later key, as far as the rule's name tells: keys that come later then change nothing."""
    return _has_causal(rule.name)


def mentions_causal(rule: Rule) -> bool:
    """Whether a rule has a causal part: a decoder's, though it may see some keys ahead, as of a picture."""
    return any(part == "causal" for part in _flat(rule.name))


def _flat(name: tuple[Any, ...]) -> list[Any]:
    return [part for each in name for part in (_flat(each) if isinstance(each, tuple) else [each])]


def _has_causal(name: tuple[Any, ...]) -> bool:
    return name[0] == "causal" or (name[0] == "and" and any(_has_causal(part) for part in name[1:]))


def agree(asked: ModelMask, item: int, mask: Mask, rows: range, keys: range) -> bool:
    """Whether a mask says of some rows what the model's function says."""
    step = max(1, len(rows) // SAMPLE)
    chosen = torch.tensor([*rows[::step], rows[-1]])
    all_keys = torch.arange(keys.start, keys.stop)
    found = mask.visible((chosen - rows.start)[:, None], all_keys - keys.start)
    return torch.equal(found, asked.visible(item, chosen[:, None], all_keys))


def _rule_of(function: Any, item: int) -> Rule | None:
    """The rule of one of the library's functions; None of any other."""
    from transformers import masking_utils as library

    if function is library.causal_mask_function:
        return CAUSAL
    if function is library.bidirectional_mask_function:
        return EVERYTHING
    maker = getattr(function, "__qualname__", "").partition(".<locals>")[0]
    if getattr(function, "__module__", None) != library.__name__ or maker not in _RULES:
        return None
    return _RULES[maker](getclosurevars(function).nonlocals, item)


def _composed(name: str, compose: Callable[[Mask, Mask], Mask]) -> Callable[[Mapping[str, Any], int], Rule | None]:
    def rule(values: Mapping[str, Any], item: int) -> Rule | None:
        parts = [_rule_of(each, item) for each in values["mask_functions"]]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None

        def build(rows: range, keys: range) -> Mask:
            mask, *others = (part.build(rows, keys) for part in known)
            for other in others:
                mask = compose(mask, other)
            return mask

        return Rule((name, *(part.name for part in known)), build)

    return rule


def _window(values: Mapping[str, Any], item: int) -> Rule:
    left = int(values["sliding_window"]) - 1
    return Rule(
        ("window", left, None),
        lambda rows, keys: masks.sliding_window(left, None, rows.start - keys.start),
    )


def _window_both_ways(values: Mapping[str, Any], item: int) -> Rule:
    size = int(values["sliding_window"])
    return Rule(("window", size, size), lambda rows, keys: masks.sliding_window(size, size, rows.start - keys.start))


def _chunked(values: Mapping[str, Any], item: int) -> Rule:
    size, first = int(values["chunk_size"]), int(values["left_padding"][item])

    def chunks(positions: range) -> Tensor:
        return (torch.arange(positions.start, positions.stop) - first) // size

    def build(rows: range, keys: range) -> Mask:
        if (keys.start - first) % size == 0:
            return masks.chunked(size, rows.start - keys.start)
        return masks.documents(chunks(rows), chunks(keys))

    return Rule(("chunked", size, first), build)


def _blocks(values: Mapping[str, Any], item: int) -> Rule:
    """Blocks that are seen whole, such as the patches of a picture; −1 stands for no block."""
    return _documents(values["block_sequence_ids"][item].cpu(), nothing=True)


def _packed(values: Mapping[str, Any], item: int) -> Rule:
    return _documents(values["packed_sequence_mask"][item].cpu(), nothing=False)


def _documents(ids: Tensor, *, nothing: bool) -> Rule:
    def build(rows: range, keys: range) -> Mask:
        of_rows, of_keys = ids[rows.start : rows.stop], ids[keys.start : keys.stop]
        if nothing:  # who is in no block shares it with nobody
            of_rows, of_keys = of_rows.where(of_rows >= 0, -1), of_keys.where(of_keys >= 0, -2)
        return masks.documents(of_rows, of_keys)

    return Rule(("documents", nothing, ids.numpy().tobytes()), build)


def _remapped(values: Mapping[str, Any], item: int) -> Rule | None:
    """Positions within packed sequences: rules of distances alone stay what they are."""
    rule = _rule_of(values["mask_function"], item)
    return rule if rule is not None and _of_distances(rule.name) else None


def _of_distances(name: tuple[Any, ...]) -> bool:
    if name[0] == "and":
        return all(_of_distances(part) for part in name[1:])
    return name[0] in ("everything", "causal", "window")


_RULES: dict[str, Callable[[Mapping[str, Any], int], Rule | None]] = {
    "and_masks": _composed("and", both),
    "or_masks": _composed("or", lambda one, other: one | other),
    "sliding_window_overlay": _window,
    "sliding_window_bidirectional_overlay": _window_both_ways,
    "chunked_overlay": _chunked,
    "blockwise_overlay": _blocks,
    "packed_sequence_mask_function": _packed,
    "remap_positions_for_packed_sequence": _remapped,
}
