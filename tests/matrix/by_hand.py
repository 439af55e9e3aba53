"""Dense attention in NumPy's float64, written out: what an AttentionMatrix must agree with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ByHand(NamedTuple):
    scores: np.ndarray
    scaled: np.ndarray
    weights: np.ndarray
    logsumexp: np.ndarray


def by_hand(q, k, *, visible=True, scale=None, softcap=None, sinks=None, bias=0.0) -> ByHand:
    """All stages for q (heads, queries, d_k), k (kv_heads, keys, d_k); visible and bias as (heads, queries, keys)."""
    q, k = q.astype(float), np.repeat(k.astype(float), len(q) // len(k), 0)
    scores = q @ k.swapaxes(1, 2)
    scaled = scores * (1 / np.sqrt(q.shape[2]) if scale is None else scale)
    scaled = scaled if softcap is None else softcap * np.tanh(scaled / softcap)
    scaled = np.where(visible, scaled + bias, -np.inf)
    sink = np.full(len(q), -np.inf) if sinks is None else sinks
    logits = np.concatenate([scaled, np.broadcast_to(sink[:, None, None], (*scaled.shape[:2], 1))], -1)
    peak = np.maximum(logits.max(-1), -1e300)
    with np.errstate(divide="ignore"):
        logsumexp = peak + np.log(np.exp(logits - peak[..., None]).sum(-1))
    weights = np.exp(scaled - np.maximum(logsumexp, -1e300)[..., None])
    return ByHand(scores, scaled, weights, logsumexp)


def random_qkv(heads=4, kv_heads=2, queries=9, keys=9, d_k=5, d_v=3, seed=0, dtype=np.float32):
    random = np.random.default_rng(seed)
    shapes = (heads, queries, d_k), (kv_heads, keys, d_k), (kv_heads, keys, d_v)
    return tuple(random.normal(size=shape).astype(dtype) for shape in shapes)
