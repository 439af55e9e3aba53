"""Whether a run of the model goes on where those before it ended, and the reason where it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

ONE_BY_ONE = "Record each by itself, or all texts in one call, as one padded batch"
SECOND_TEXT = f"{ONE_BY_ONE}; of sentence-transformers, encode(texts, batch_size=len(texts))."
BY_GENERATE = (
    "generate reads something anew by itself: with guidance_scale, and Whisper's for sounds longer than its window, at "
    "further temperatures, and to find out the language. Give it one window, one temperature and the language, or run "
    "the model on what came out: softmap.record(inputs, model)."
)
GROWING = (
    "This model's masks don't say which places of a cache of fixed size are filled: give it one that grows, which is "
    "transformers' own where no cache_implementation is named."
)
SAME_BEGINNING = "Record each continuation by itself: two caches go on from the same tokens."
NO_CACHE = (
    "Let the model keep a cache (use_cache=True), or record the whole text in one run: softmap.record(ids, model)."
)
PRUNED_SINCE = "Prune the cache after the block, or take tokens from its end only: cache.crop(-n)."
SHARED = f"{ONE_BY_ONE}; if an assistant drafts for the model, take one that shares no layers with it."
NOT_SEEN = "Run the model on all tokens in the block: what it read in between was not seen."
ANSWERS = "Record one answer to each input (num_beams=1, num_return_sequences=1)."
BEAMS = "Generate without beams (num_beams=1): they change the places of sequences in the cache."
ROUNDED = "Generate with the model's own cache: a quantised one gives later tokens other keys than earlier ones saw."
PRUNED = "Leave the cache as the model fills it, or take tokens from its end only: cache.crop(-n)."
WHOLE = "Record the whole text in one run: softmap.record(ids, model)."


class Refusal(NamedTuple):
    """What came in place of a continuation, and what to do next."""

    got: str
    hint: str


@dataclass(frozen=True, eq=False)
class Run:
    """What a run of the model begins with.

    Attributes:
        batch: how many sequences it is given; None where nobody said.
        cache: the cache that it goes on with; None without one.
        kept: how many tokens of earlier runs the cache holds.
        lost: how many of those that it held after the run before it has lost since.
        encoded: whether it is given what an encoder made in an earlier run.
        repeats: whether its tokens begin with all those of the runs before.
        generated: whether the same call of ``generate`` began the runs before.
    """

    batch: int | None = None
    cache: Any = None
    kept: int = 0
    lost: int = 0
    encoded: bool = False
    repeats: bool = False
    generated: bool = False

    def refuse_batch(self) -> Refusal:
        """Say why it has another number of sequences than those before."""
        if self.kept or self.encoded:
            return Refusal(f"{self.batch} to go on with", ANSWERS)
        if self.generated:
            return Refusal(f"{self.batch} in a second batch of the same generate", BY_GENERATE)
        return Refusal(f"{self.batch} in a second batch", SECOND_TEXT)

    def refuse_order(self, rows: range, keys: range, before: range) -> Refusal:
        """Say why its queries don't follow those before."""
        got = f"queries {rows.start} to {rows.stop} on keys {keys.start} to {keys.stop}"
        reasons = (
            (rows.start > before.stop, "", NOT_SEEN),
            (rows.start < self.kept, f", where the cache holds {self.kept} tokens", GROWING),
            (
                rows.start > before.start or self.kept > 0,
                ", a second continuation of the same beginning",
                SAME_BEGINNING,
            ),
            (self.repeats and self.cache is not None, ", the text anew, with another cache", SHARED),
            (self.repeats, ", the text anew", NO_CACHE),
            (self.generated, ", a second time in one generate", BY_GENERATE),
            (True, ", a second text", SECOND_TEXT),
        )
        why, hint = next((why, hint) for holds, why, hint in reasons if holds)
        return Refusal(got + why, hint)

    def refuse_keys(self, moved: bool) -> Refusal:
        """Say why the keys of earlier tokens are no longer what they were.

        Args:
            moved: whether they are another sequence's.
        """
        if moved:
            return Refusal("those of another sequence", BEAMS)
        kinds = [type(each) for each in (self.cache, *getattr(self.cache, "layers", ()))]
        if any("quant" in base.__name__.lower() for kind in kinds for base in kind.__mro__):
            return Refusal(f"others, from a cache of {kinds[-1].__name__}, which rounds them", ROUNDED)
        if self.lost:
            return Refusal(f"others, in a cache that has lost {self.lost} tokens", PRUNED)
        return Refusal("others", PRUNED)


def key_in_cache(cache: Any, layer: int | None, item: int, position: int) -> Tensor | None:
    """The key that a cache holds for a position of one sequence, (kv_heads, 1, d_k); None where that can't be known."""
    layers = getattr(getattr(cache, "self_attention_cache", cache), "layers", ())
    keys: Any = getattr(layers[layer], "keys", None) if layer is not None and layer < len(layers) else None
    if getattr(keys, "ndim", 0) != 4 or keys.shape[2] == 0 or item >= len(keys):
        return None
    last = min(position, keys.shape[2] - 1)  # a window holds the last ones only
    found: Tensor = keys[item, :, last : last + 1]
    return found
