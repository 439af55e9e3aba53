"""Recordings built by hand from random numbers, and what it means that two of them are the same."""

from __future__ import annotations

from dataclasses import astuple, replace

import torch

from softmap import AttentionMatrix, masks
from softmap.recorded import Origin, OtherLayer, Picture, Place, RecordedLayer, RecordedSequence, Recording
from softmap.tokens import Tokens

ORIGIN = Origin("a/model", "SomeModel", "0123abc", "float32", "float32", {"softmap": "0.1.0", "torch": "2.6.0"})
OTHERS = (OtherLayer("layers.1.mixer", "Mamba"), OtherLayer("head.pool", "Pooler", "not through the interface"))
ARRAYS = ("q", "k", "v", "sinks", "logsumexp")


def make_layer(
    seed=0,
    *,
    heads=4,
    kv_heads=2,
    queries=9,
    keys=None,
    d_k=5,
    d_v=3,
    dtype=torch.float32,
    mask=None,
    bias=None,
    sinks=False,
    softcap=None,
    scale=0.4,
    keep=("qk", "v", "summary"),
    summary=None,
    **of,
):
    """A layer of random numbers; `summary` are the options of AttentionMatrix.summary, `of` other attributes."""
    keys = queries if keys is None else keys
    random = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(size, generator=random, dtype=torch.float64).to(dtype)
        for size in ((heads, queries, d_k), (kv_heads, keys, d_k), (kv_heads, keys, d_v))
    )
    logits = torch.randn(heads, generator=random).to(torch.promote_types(dtype, torch.float32)) if sinks else None
    mask = masks.causal(keys - queries) if mask is None else mask
    matrix = AttentionMatrix(q, k, mask=mask, scale=scale, softcap=softcap, sinks=logits, bias=bias)
    problem = matrix._lookup.problem
    head, query = torch.meshgrid(torch.arange(heads), torch.arange(queries), indexing="ij")
    found = matrix.summary(**(summary or {})) if "summary" in keep else None
    logsumexp = matrix._lookup.logsumexp(head.reshape(-1), query.reshape(-1)).view(heads, queries)
    return RecordedLayer(
        **{"path": f"layers.{seed}.attention", "kind": "self", "part": "decoder"} | of,
        shape=(heads, queries, keys),
        q=q if "qk" in keep else None,
        k=k if "qk" in keep else None,
        v=v if "v" in keep else None,
        mask=problem.mask,
        scale=scale,
        softcap=softcap,
        sinks=logits,
        bias=problem.bias,
        summary=found,
        logsumexp=logsumexp if "summary" in keep else None,
        largest=(problem.largest_q, problem.largest_k),
    )


def make_tokens(count=9, text=None):
    """Tokens of a text of so many words, with one special token at the end."""
    words = [f"word{i}" for i in range(count - 1)] if text is None else text.split(" ")
    starts = [sum(len(word) + 1 for word in words[:i]) for i in range(len(words))]
    spans = [(start, start + len(word)) for start, word in zip(starts, words, strict=True)]
    return Tokens(
        text=" ".join(words),
        ids=tuple(range(100, 101 + len(words))),
        pieces=(*words, "</s>"),
        spans=(*spans, (spans[-1][1], spans[-1][1])),
        words=(*range(len(words)), None),
        special=(*[False] * len(words), True),
        unknown=tuple(i == 1 for i in range(len(words) + 1)),
        cut=3,
    )


def make_recording(layers=2, batch=1, queries=9, **options):
    """A recording whose sequences have different lengths, of layers whose queries are its tokens."""
    sequences = []
    for i in range(batch):
        of = {"queries": queries + i, "queries_of": "tokens", "keys_of": "tokens"} | options
        own = tuple(make_layer(100 * i + n, number=n, difference=1e-6, **of) for n in range(layers))
        sequences.append(RecordedSequence(own, make_tokens(queries + i)))
    return Recording(ORIGIN, tuple(sequences), OTHERS)


def assert_same(one, other):
    """Two recordings are the same to the last bit; masks and biases say the same everywhere."""
    assert (one.origin, one.others, one.partial) == (other.origin, other.others, other.partial)
    assert len(one.sequences) == len(other.sequences)
    for first, second in zip(one.sequences, other.sequences, strict=True):
        assert (first.tokens, first.target) == (second.tokens, second.target)
        assert_same_pictures(first.pictures, second.pictures)
        assert_same_layers(first.layers, second.layers)


def make_two_texts():
    """An encoder-decoder: layers of the encoder, of the decoder, and across."""
    encoder = {"part": "encoder", "queries_of": "tokens", "keys_of": "tokens", "mask": masks.full()}
    cross = {"kind": "cross", "queries_of": "target", "keys_of": "tokens", "mask": masks.full()}
    layers = (
        make_layer(0, number=0, queries=12, **encoder),
        make_layer(1, number=1, queries=7, queries_of="target", keys_of="target"),
        make_layer(2, number=2, queries=7, keys=12, **cross),
    )
    texts = make_tokens(12), make_tokens(7, "in another language it was said")
    return Recording(ORIGIN, (RecordedSequence(layers, *texts),))


def make_picture(count=9, of=None, path="layers", grid=(2, 3), first=1, seed=0):
    """A picture of random colours, with its patches in one place."""
    tokens = first + torch.arange(grid[0] * grid[1]).view(grid)
    pixels = torch.randint(256, (grid[0] * 4, grid[1] * 4, 3), generator=torch.Generator().manual_seed(seed))
    place = Place(of, "" if of else path, count, tokens)
    return Picture(pixels.to(torch.uint8), stretched=seed > 0, places=(place,))


def assert_same_pictures(first, second):
    """Two lists of pictures are the same."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert_same_array(one.pixels, other.pixels)
        assert one.stretched == other.stretched
        assert list(map(_parts, one.places)) == list(map(_parts, other.places))
        for a, b in zip(one.places, other.places, strict=True):
            assert_same_array(a.tokens, b.tokens)


def _parts(place):
    return place.of, place.path, place.count


def assert_same_layers(first, second):
    """Two lists of layers are the same."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert _plain(one) == _plain(other)
        for name in ARRAYS:
            assert_same_array(getattr(one, name), getattr(other, name))
        _assert_same_summary(one.summary, other.summary)
        heads, queries, keys = (range(size) for size in one.shape)
        assert torch.equal(one.mask.strip(queries, keys), other.mask.strip(queries, keys))
        assert one.mask.offset == other.mask.offset
        assert (one.bias is None) == (other.bias is None)
        if one.bias is not None:
            assert torch.equal(one.bias.strip(heads, queries, keys), other.bias.strip(heads, queries, keys))
            assert one.bias.offset == other.bias.offset


def assert_same_array(one, other):
    """Two tensors have the same dtype, shape and bits (NaN too), or there is none."""
    assert (one is None) == (other is None)
    if one is not None:
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        bits = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in (one, other)]
        assert torch.equal(*bits)


def _plain(layer):
    """A layer without its arrays."""
    nothing = dict.fromkeys((*ARRAYS, "summary", "bias", "inside", "mask", "checksum"))
    return astuple(replace(layer, **nothing))


def _assert_same_summary(one, other):
    assert (one is None) == (other is None)
    if one is None:
        return
    assert (one.kernel, one.why) == (other.kernel, other.why)
    for name in ("logsumexp", "output", "entropy", "received"):
        assert_same_array(getattr(one, name), getattr(other, name))
    for name in ("top", "distance", "cells"):
        pair = getattr(one, name), getattr(other, name)
        assert (pair[0] is None) == (pair[1] is None)
        for first, second in zip(*(part or () for part in pair), strict=True):
            if isinstance(first, torch.Tensor):
                assert_same_array(first, second)
            else:
                assert first == second
