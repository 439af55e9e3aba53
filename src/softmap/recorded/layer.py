"""One attention layer of a recording: what it worked with, and its matrix, which is computed where it is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from softmap.errors import ParameterError, RecordingError
from softmap.forking import cached_property
from softmap.kernels.contract import Problem
from softmap.matrix import AttentionMatrix

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from softmap.biases import Bias
    from softmap.masks import Mask
    from softmap.matrix import Summary
    from softmap.recorded.checksum import Checksum

Kind = Literal["self", "cross"]
Part = Literal["encoder", "decoder"]
Text = Literal["tokens", "target"]


class Inside(NamedTuple):
    """More of a layer, for its story.

    Attributes:
        output: what the model's own attention function gave, (heads, rows, d_v), at the rows that were compared: all
            of a page; None where the model has none.
        x: what entered the layer, (tokens, d_model), where q, k and v are linear maps of it alone; else None.
        biases: those of q, k and v that a bias is added to; none where x is None.
        rows: the queries that were compared, (rows,), in rising order; None where the output is.
    """

    output: Float[Tensor, "heads rows d_v"] | None
    x: Float[Tensor, "tokens d_model"] | None
    biases: tuple[str, ...]
    rows: Int[Tensor, " rows"] | None = None


@dataclass(frozen=True, repr=False, eq=False)
class RecordedLayer:
    """One attention layer on one sequence.

    Attributes:
        path: the module's path in the model, such as ``layers.3.self_attn``.
        kind: ``self``, or ``cross`` where queries and keys come from two sequences.
        part: ``encoder`` or ``decoder``; of a model that is only one of them, what it is.
        shape: (heads, queries, keys).
        q: the queries, (heads, queries, d_k); None where statistics alone were kept.
        k: the keys, (kv_heads, keys, d_k), likewise.
        v: the values, (kv_heads, keys, d_v); None where they were not kept.
        mask: which query may see which key.
        scale: what step 2 multiplies the scores by.
        softcap: the cap of the scaled scores, or None.
        sinks: one extra logit per head, (heads,), or None.
        bias: what is added to the scaled scores, or None.
        summary: the statistics of one pass, without the output; None where none were asked for.
        logsumexp: each row's, (heads, queries), float64, nats; None as `summary`, and where q and k were rounded to be
            kept, since it is then no longer theirs.
        largest: the largest magnitudes in q and in k.
        queries_of: which text the queries are the tokens of; None where they are no tokens, as of a picture.
        keys_of: likewise, of the keys.
        number: which of the model's attention layers it is, counted from 0 in the order in which they ran; None where it
            is its place in the recording.
        difference: the largest absolute difference between the output as softmap computed it and that of the model's own
            attention function, over all rows of a page, some of more; None where the model has none to compare with.
        inside: what else was kept for telling the layer's story, in memory alone; else None.
        checksum: that of the file that its arrays lie in; None where they came from no file that was opened.
    """

    path: str
    kind: Kind
    part: Part
    shape: tuple[int, int, int]
    q: Float[Tensor, "heads queries d_k"] | None
    k: Float[Tensor, "kv_heads keys d_k"] | None
    v: Float[Tensor, "kv_heads keys d_v"] | None
    mask: Mask
    scale: float
    softcap: float | None
    sinks: Float[Tensor, " heads"] | None
    bias: Bias | None
    summary: Summary | None
    logsumexp: Float[Tensor, "heads queries"] | None
    largest: tuple[float, float]
    queries_of: Text | None = None
    keys_of: Text | None = None
    number: int | None = None
    difference: float | None = None
    inside: Inside | None = None
    checksum: Checksum | None = None

    def look(self) -> None:
        """Say that its arrays are looked at, so that their file is compared with its checksum.

        Raises:
            RecordingError: the file was found to be damaged.
        """
        if self.checksum is not None:
            self.checksum.look()

    @property
    def matrix(self) -> AttentionMatrix:
        """The attention matrix, which is never stored.

        Raises:
            RecordingError: q and k were not kept; their file was found to be damaged.
        """
        self.look()
        return self._matrix

    @cached_property
    def _matrix(self) -> AttentionMatrix:
        if self.q is None or self.k is None:
            hint = "Look at its summary, or record again and keep q and k."
            raise RecordingError(self.path, "q and k in the recording", "statistics alone", hint)
        problem = Problem(self.q, self.k, self.mask, self.scale, self.softcap, self.sinks, self.bias)
        return AttentionMatrix._of(problem.with_largest(*self.largest), self.logsumexp)

    @property
    def heads(self) -> int:
        """How many query heads it has."""
        return self.shape[0]

    def find_head(self, head: Any) -> int:
        """A head's number, counted from 0.

        Raises:
            ParameterError: there is none.
        """
        return find("head", head, self.heads, f"{self.path} has {self.heads} heads, counted from 0.")

    def __repr__(self) -> str:
        kept = [name for name in ("q", "k", "v", "summary") if getattr(self, name) is not None]
        return (
            f"RecordedLayer({self.path!r}, {self.part} {self.kind}, {self.shape}, with {', '.join(kept) or 'nothing'})"
        )


class OtherLayer(NamedTuple):
    """A layer that is not in the recording.

    Attributes:
        path: the module's path.
        name: its class, such as ``Qwen3NextGatedDeltaNet``.
        why: ``no softmax attention``; ``not through the interface``, torch's own attention; ``a softmax of its own``, as
            of an adapter; or ``did not run``.
    """

    path: str
    name: str
    why: str = "no softmax attention"


def find(name: str, value: Any, count: int, hint: str) -> int:
    """A number from 0, or from the end where it is negative, that counts something of which there are so many."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or not -count <= value < count:
        raise ParameterError(name, f"a number from 0 to {count - 1}", repr(value), hint)
    return int(value) % count
