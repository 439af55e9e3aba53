"""One call of a model's attention function: read, and computed.

A model calls ``function(module, query, key, value, attention_mask, **options)`` with arrays (batch, heads, tokens, d);
see https://huggingface.co/docs/transformers/attention_interface. Here it becomes one `Piece` for each sequence, with its
padding trimmed, and everything in it that changes the weights. What is not understood is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from softmap import biases, kernels, masks
from softmap.errors import ModelError
from softmap.kernels.contract import Problem, Wanted
from softmap.models.chosen import chosen_rule, names_option
from softmap.models.implementations import (
    check_mask,
    check_options,
    is_causal,
    rule_without_mask,
    sinks_of,
)
from softmap.models.masking import (
    CAUSAL,
    EVERYTHING,
    ModelMask,
    Rule,
    agree,
    both,
    dense_rule,
    hides_later,
    later_keys,
    looks_back,
)
from softmap.models.numbers import Numbers, largest_score

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from softmap.biases import Bias
    from softmap.masks import Mask

HARMLESS = frozenset(
    [
        "dropout",
        "scaling",
        "softcap",
        "s_aux",
        "position_bias",
        "is_causal",
        "sliding_window",
        "output_attentions",
        "output_hidden_states",
        "position_ids",
        "use_cache",
        "cache_position",
        "return_dict",
        "deterministic",
        "cu_seqlens",
        "cu_seq_lens_q",
        "cu_seq_lens_k",
        "max_length_q",
        "max_length_k",
        "max_seqlen",
        "num_items_in_batch",
        "logits_to_keep",
        "layer_idx",
        "position_embeddings",
        "token_type_ids",
        "output_router_logits",
        "attention_mask",
        "head_mask",
        "indices",
    ]
)
"""What models hand to their attention function: known here, or of no effect on the weights."""
OF_TOKENIZERS = frozenset(
    [
        "offset_mapping",
        "special_tokens_mask",
        "length",
        "num_truncated_tokens",
        "overflowing_tokens",
        "overflow_to_sample_mapping",
    ]
)
"""What tokenizers say about their text beside what a model reads. Models hand it on, and no attention function takes it."""


@dataclass(eq=False)
class Piece:
    """What one call says of one sequence.

    Attributes:
        q: the queries, (heads, queries, d_k).
        k: the keys, (kv_heads, keys, d_k).
        v: the values, (kv_heads, keys, d_v).
        rows: the positions of the queries in the sequence.
        keys: the positions of the keys.
        rule: which key may be seen by its position.
        padding: which of some keys are real tokens.
        scale: what the scores are multiplied by.
        softcap: the cap of the scaled scores, or None.
        sinks: one logit per head, or None.
        added: what is added to the scaled scores, (heads or 1, queries, keys), or None.
    """

    q: Float[Tensor, "heads queries d_k"]
    k: Float[Tensor, "kv_heads keys d_k"]
    v: Float[Tensor, "kv_heads keys d_v"]
    rows: range
    keys: range
    rule: Rule
    padding: Callable[[range], Mask]
    scale: float
    softcap: float | None
    sinks: Float[Tensor, " heads"] | None
    added: Float[Tensor, "heads queries keys"] | None

    def without_arrays(self) -> Piece:
        """The same, without q, k and v, which are kept elsewhere. A view of them would hold them."""
        nothing = self.q.new_empty(0, 0, 0)
        return replace(self, q=nothing, k=nothing, v=nothing)

    def cropped(self, rows: int, keys: int) -> Piece:
        """The first so many queries and keys of one that is `without_arrays`."""
        added = None if self.added is None else self.added[:, :rows, :keys]
        return replace(self, rows=self.rows[:rows], keys=self.keys[:keys], added=added)

    @property
    def problem(self) -> Problem:
        """The matrix of this call alone."""
        mask = both(self.rule.build(self.rows, self.keys), self.padding(self.keys))
        bias = None if self.added is None else bias_of(self.added, len(self.q))
        return Problem(self.q, self.k, mask, self.scale, self.softcap, self.sinks, bias)


@dataclass(frozen=True, eq=False)
class Call:
    """The arguments of one call.

    Attributes:
        module: the attention layer that calls.
        q: (batch, heads, queries, d_k).
        k: (batch, kv_heads, keys, d_k).
        v: (batch, kv_heads, keys, d_v).
        mask: what the model's mask became: a `ModelMask`, a tensor that the model made itself, or None.
        options: the other arguments.
        eager: the plain function that the module would call by itself, where it said so.
        implementation: the name of the attention function that the layer was set to; None where none was named.
        places: the positions of queries and keys, where a mask that is left out knew them.
    """

    module: nn.Module
    q: Float[Tensor, "batch heads queries d_k"]
    k: Float[Tensor, "batch kv_heads keys d_k"]
    v: Float[Tensor, "batch kv_heads keys d_v"]
    mask: ModelMask | Tensor | None
    options: dict[str, Any]
    eager: Callable[..., Any] | None = None
    implementation: str | None = "softmap"
    places: tuple[range, range] | None = None

    def check(self, name: str) -> None:
        """Refuse what is not understood.

        Raises:
            ModelError: arguments that may change the weights in a way not known here.
        """
        known = HARMLESS | OF_TOKENIZERS
        unknown = [key for key, value in self.options.items() if value is not None and key not in known]
        if self.options.get("indices") is not None and not names_option(self.module, "indices"):
            unknown.append("indices")  # the user's, of which the model's own function may know nothing
        if unknown:
            hint = (
                "Such attention can't be told by softmax(q kᵀ · scale) v with a mask, a bias, a cap and sinks. Leave out "
                "what you gave the model that it has no use for."
            )
            raise ModelError(name, "attention arguments that softmap knows", ", ".join(sorted(unknown)), hint)
        if self.options.get("dropout"):
            got = f"dropout of {self.options['dropout']}"
            raise ModelError(name, "a model in evaluation mode", got, "Call model.eval() first.")
        check_options(self.implementation, self.options, name)
        check_mask(self.implementation, self.module, self.options, self.mask, name)
        sinks = sinks_of(self.implementation, self.options)
        if sinks is not None and sinks.shape != self.q.shape[1:2]:
            got = f"sinks of shape {tuple(sinks.shape)}"
            raise ModelError(name, "one sink for each head", got, "Other sinks are not known to softmap.")
        sizes = self.q.shape[2], self.k.shape[2]
        self._check_tensors(name)
        if isinstance(self.mask, ModelMask) and (len(self.mask.rows), len(self.mask.keys)) != sizes:
            got = f"one of {len(self.mask.rows)} x {len(self.mask.keys)}"
            hint = "The model changes its keys after it has asked for a mask, which is not known to softmap."
            raise ModelError(name, f"a mask of {sizes[0]} x {sizes[1]}, as q and k have it", got, hint)

    def _check_tensors(self, name: str) -> None:
        """Refuse a mask that has been written to, and arrays of keys that fit no query."""
        (batch, heads, queries, _), keys = self.q.shape, self.k.shape[2]
        if isinstance(self.mask, ModelMask) and self.mask.is_written_to:
            hint = "softmap can't follow what is written into a mask in place."
            raise ModelError(name, "a mask that is read", "one that the model has written to", hint)
        if isinstance(self.mask, torch.Tensor):
            shape = self.mask.shape
            fits = [size in (1, own) for size, own in zip(shape, (batch, heads, queries), strict=False)]
            if len(shape) != 4 or not all(fits) or not (shape[3] == 1 or shape[3] >= keys):
                expected = f"a mask of shape {(batch, heads, queries, keys)}, or 1 in place of these"
                hint = "Such a mask is not known to softmap."
                raise ModelError(name, expected, f"shape {tuple(shape)}", hint)
        chosen = self.options.get("indices")
        if chosen is not None and (chosen.ndim != 3 or chosen.shape[:2] != (batch, queries)):
            hint = "Such a choice of keys is not known to softmap."
            raise ModelError(name, f"chosen keys ({batch}, {queries}, n)", f"shape {tuple(chosen.shape)}", hint)

    @property
    def plain(self) -> Callable[..., Any] | None:
        """The model's own eager attention function; None where none is known."""
        return self.eager or eager_function(self.module)

    @property
    def causal(self) -> bool:
        """Whether a call without a mask is causal, as the attention function that was found takes it."""
        return is_causal(self.implementation, self.module, self.options.get("is_causal"), self.q.shape[2])

    @property
    def positions(self) -> tuple[range, range] | None:
        """The positions of queries and keys, where the mask knows them, or did."""
        return (self.mask.rows, self.mask.keys) if isinstance(self.mask, ModelMask) else self.places

    def piece(
        self,
        item: int,
        rows: range,
        keys: range,
        own: range | None = None,
        own_keys: range | None = None,
        *,
        trim: bool = True,
        shared: dict[Any, Any] | None = None,
    ) -> Piece:
        """What it says of one sequence.

        Args:
            item: its number in the batch.
            rows: the positions of the queries.
            keys: the positions of the keys.
            own: the positions that are real tokens, of queries that are not those of the keys; else the mask's.
            own_keys: likewise of the keys, where the mask is a tensor, which does not say so itself.
            trim: whether padding is left out.
            shared: where what is made of a mask is found again by the other layers that are handed the same.
        """
        real_keys = real_rows = range(max(rows.stop, keys.stop))
        if isinstance(self.mask, ModelMask) and trim:
            real_keys = real_rows = self.mask.valid_range(item)
        real_rows = real_rows if own is None else own
        real_keys = real_keys if own_keys is None else own_keys
        rule, added = self._shared_rule(
            item, rows, keys, {} if shared is None else shared, None if own_keys is None else own
        )
        if trim and self.positions is not None and looks_back(rule):  # a cache of fixed size has room for keys to come
            real_keys = _overlap(real_keys, range(rows.stop))
        some_rows, some_keys = _overlap(rows, real_rows), _overlap(keys, real_keys)
        of_rows, of_keys = _slice(some_rows, rows), _slice(some_keys, keys)
        bias = self._position_bias(item)
        if bias is not None:
            added = bias if added is None else added + bias
        sinks, softcap = sinks_of(self.implementation, self.options), self.options.get("softcap")
        return Piece(
            q=self.q[item, :, of_rows],
            k=self.k[item, :, of_keys],
            v=self.v[item, :, of_keys],
            rows=some_rows,
            keys=some_keys,
            rule=rule,
            padding=partial(self.mask.padding, item) if isinstance(self.mask, ModelMask) else lambda keys: masks.full(),
            scale=self.scale,
            softcap=None if softcap is None else float(softcap),
            sinks=None if sinks is None else sinks.detach().float(),
            added=None if added is None else added[:, of_rows, of_keys],
        )

    @property
    def scale(self) -> float:
        """What the scores are multiplied by."""
        scale = self.options.get("scaling")
        return float(self.q.shape[-1] ** -0.5 if scale is None else scale)

    def _shared_rule(
        self, item: int, rows: range, keys: range, shared: dict[Any, Any], own: range | None
    ) -> tuple[Rule, Tensor | None]:
        """`rule`, made once for all layers that are handed this mask."""
        if self.mask is None:
            return self._with_choice(self.rule(item, rows, keys), item, rows, keys)
        if isinstance(self.mask, torch.Tensor) and self.mask.is_floating_point():
            matrix = matrix_of(self.mask, item, len(rows), len(keys))
            _, numbers = shared.setdefault((id(self.mask), item, rows, keys), (self.mask, Numbers(matrix)))
            return self._with_choice(self._rule_of_numbers(numbers, item, rows, keys, shared, own), item, rows, keys)
        key = id(self.mask), item, rows, keys
        if key not in shared:  # with the mask, so that its id stays its own
            shared[key] = self.mask, self.rule(item, rows, keys)
        made: tuple[Rule, Tensor | None] = shared[key][1]
        return self._with_choice(made, item, rows, keys)

    def _with_choice(
        self, made: tuple[Rule, Tensor | None], item: int, rows: range, keys: range
    ) -> tuple[Rule, Tensor | None]:
        """The rule, of which only those keys are left that an indexer chose."""
        chosen = self.options.get("indices")
        return made if chosen is None else (chosen_rule(made[0], chosen[item].detach(), rows, keys), made[1])

    def rule(self, item: int, rows: range, keys: range) -> tuple[Rule, Tensor | None]:
        """Which key may be seen, and what a mask of numbers adds beyond that."""
        if isinstance(self.mask, ModelMask):
            rule = self.mask.rule(item)
            if not agree(self.mask, item, rule.build(rows, keys), rows, keys):
                rule = self.mask.asking(item)  # the library's function is no longer what its name says
            return rule, None
        if self.mask is None:
            rule = rule_without_mask(self.implementation, self.module, self.options, self.q.shape[2], len(keys))
            return rule, None
        matrix = matrix_of(self.mask, item, len(rows), len(keys))
        if len(matrix) == 1:
            return dense_rule(matrix[0], rows, keys), None
        return EVERYTHING, torch.zeros_like(matrix, dtype=torch.float32).masked_fill_(~matrix, -torch.inf)

    def _rule_of_numbers(
        self, numbers: Numbers, item: int, rows: range, keys: range, shared: dict[Any, Any], own: range | None
    ) -> tuple[Rule, Tensor | None]:
        """What of a mask of numbers is hidden, and what is added; made once for all layers that see the same.

        Queries outside of `own` are left out, so what stands in their rows is of no matter.
        """
        hidden = numbers.hidden(self._bound(item))
        key = "numbers", id(hidden), rows, keys, own
        if key not in shared:
            of_queries = hidden
            if own is not None:
                of_queries = torch.ones_like(hidden)
                mine = _slice(_overlap(rows, own), rows)
                of_queries[:, mine] = hidden[:, mine]
            shared[key] = hidden, _rule_and_added(numbers.added, of_queries, rows, keys)
        found: tuple[Rule, Tensor | None] = shared[key][1]
        return found

    def _bound(self, item: int) -> float:
        """No scaled score of a sequence, with its bias, is larger than this or smaller than minus this."""
        bound, bias = largest_score(self.q[item], self.k[item], self.scale), self._position_bias(item)
        bound = min(bound, float(self.options.get("softcap") or torch.inf))
        return bound if bias is None else bound + float(bias.abs().max())

    def hides(self, item: int, rows: range, keys: range, real: tuple[range, range]) -> bool:
        """Whether a mask that the model made itself hides all but the real keys from all the real queries.

        Args:
            item: the sequence's number in the batch.
            rows: the positions of all queries.
            keys: the positions of all keys.
            real: the positions of those that are real tokens.
        """
        if not isinstance(self.mask, torch.Tensor):
            return False
        matrix = matrix_of(self.mask, item, len(rows), len(keys))
        of_rows, of_keys = (_slice(_overlap(some, own), some) for some, own in zip((rows, keys), real, strict=True))
        hidden = ~matrix if matrix.dtype == torch.bool else Numbers(matrix).hidden(self._bound(item))
        outside = torch.ones(len(keys), dtype=torch.bool, device=hidden.device)
        outside[of_keys] = False
        return bool(hidden[:, of_rows][..., outside].all())

    def _position_bias(self, item: int) -> Tensor | None:
        bias = self.options.get("position_bias")
        if bias is None or not bool(bias.any()):
            return None
        mine: Tensor = bias[item if len(bias) > 1 else 0].detach()
        return mine


def matrix_of(mask: Tensor, item: int, queries: int, keys: int) -> Tensor:
    """The part of a model's own mask that is one sequence's, (heads or 1, queries, keys)."""
    return mask[item if len(mask) > 1 else 0, ..., :keys].detach().expand(-1, queries, keys)


def _rule_and_added(matrix: Tensor, hidden: Tensor, rows: range, keys: range) -> tuple[Rule, Tensor | None]:
    """A mask of numbers, (heads or 1, queries, keys), as a rule, and what is added beyond that."""
    if len(matrix) == 1 and not bool(matrix.masked_fill(hidden, 0).any()):
        return dense_rule(~hidden[0], rows, keys), None
    added = matrix.float().masked_fill(hidden, -torch.inf)
    if not hides_later(~hidden, rows, keys):
        return EVERYTHING, added
    return CAUSAL, added.masked_fill(later_keys(rows, keys, added.device), 0)


def attend(piece: Piece, wanted: Wanted | None, problem: Problem) -> tuple[Tensor, kernels.Swept | None]:
    """The output of one call, (heads, queries, d_v), and the statistics where they are wanted.

    Without them it comes from torch's own attention where that can do it without a matrix of masks, else from a sweep.
    """
    if wanted is None and _is_plain(problem):
        causal = problem.shape[1] > 1 and int(problem.spans.stop[0]) < problem.shape[2]
        grouped = problem.group > 1
        return torch.nn.functional.scaled_dot_product_attention(
            piece.q[None], piece.k[None], piece.v[None], is_causal=causal, scale=piece.scale, enable_gqa=grouped
        )[0], None
    swept = kernels.sweep(problem, wanted or Wanted(v=piece.v))
    output = swept.statistics.output
    assert output is not None
    return output, swept


def bias_of(added: Float[Tensor, "heads queries keys"], heads: int) -> Bias:
    """A matrix of biases, one for each head or one for all, as a bias: a number for each distance, where it is that."""
    table = table_by_distance(added)
    if table is None:
        return biases.dense(added)
    return biases.relative(table.expand(heads, -1), zero=added.shape[1] - 1, offset=0)


def table_by_distance(added: Float[Tensor, "heads queries keys"]) -> Float[Tensor, "heads distances"] | None:
    """The numbers of a matrix that depends on the distance j − i alone, from distance 1 − queries on; None of others."""
    _heads, queries, keys = added.shape
    table = torch.cat([added[:, 1:, 0].flip(1), added[:, 0]], dim=1)  # distances 1 - queries to keys - 1
    step = max(1, (1 << 20) // keys)
    for first in range(0, queries, step):
        rows = torch.arange(first, min(first + step, queries), device=added.device)
        distances = torch.arange(keys, device=added.device) - rows[:, None] + queries - 1
        if not torch.equal(added[:, rows], table[:, distances]):
            return None
    return None if bool(table.isinf().any()) else table


def eager_function(module: nn.Module) -> Callable[..., Any] | None:
    """The plain attention function that stands beside the module's class, or a base's."""
    homes = (sys.modules[base.__module__] for base in type(module).__mro__)
    return next((home.eager_attention_forward for home in homes if hasattr(home, "eager_attention_forward")), None)


def _is_plain(problem: Problem) -> bool:
    """Whether torch's attention can do it: every query sees every key, or the usual triangle."""
    spans, (_, queries, keys) = problem.spans, problem.shape
    if problem.softcap is not None or problem.sinks is not None or problem.bias is not None or not spans.exact:
        return False
    everything = bool((spans.start == 0).all()) and bool((spans.stop == keys).all())
    triangle = queries == keys and torch.equal(spans.stop, torch.arange(1, keys + 1)) and not bool(spans.start.any())
    return everything or triangle


def _overlap(one: range, other: range) -> range:
    start = max(one.start, other.start)
    return range(start, max(start, min(one.stop, other.stop)))


def _slice(part: range, whole: range) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)
