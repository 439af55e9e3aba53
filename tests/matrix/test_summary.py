"""What a summary holds: its dtype, whether distances are in it, and that it can be stored."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields

import array_api_strict
import numpy as np
import pytest
import torch
from by_hand import by_hand, random_qkv

from softmap import AttentionMatrix, biases, masks
from softmap.errors import ParameterError

TIGHT = {"rtol": 2e-5, "atol": 2e-6}  # float32 scores of a few units
DECODING = {"queries": 2, "keys": 9}


# Where the queries stand


@pytest.mark.parametrize("options", [{}, {"mask": masks.padding([True] * 9)}, {"bias": biases.dense(np.zeros((2, 9)))}])
def test_distances_are_not_guessed(options):
    q, k, _ = random_qkv(**DECODING)
    m = AttentionMatrix(q, k, **options)
    assert m.summary().distance is None
    assert m[1].summary().distance is None
    for look in (m.distance, m[1].distance, lambda: m.summary(distance=True)):
        with pytest.raises(
            ParameterError, match=r"distance: expected as many queries as keys.* 2 queries and 9"
        ) as told:
            look()
        assert "masks.causal(offset=7)" in told.value.hint
        assert "masks.sliding_window(None, None, offset=7)" in told.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"mask": masks.sliding_window(None, None, offset=7)},
        {"mask": masks.sliding_window(None, None, offset=7) & masks.padding([True] * 9)},
        {"bias": biases.alibi([0.0] * 4, offset=7)},
    ],
)
def test_distances_are_counted_from_a_given_offset(options):
    q, k, _ = random_qkv(**DECODING)
    m = AttentionMatrix(q, k, **options)
    wanted = (by_hand(q, k).weights * ([[7], [8]] - np.arange(9))).sum(-1)
    np.testing.assert_allclose(m.summary().distance.signed, wanted, **TIGHT)
    np.testing.assert_allclose(m.distance().signed, wanted, **TIGHT)
    np.testing.assert_allclose(m[1].distance().signed, wanted[1], **TIGHT)
    assert m.summary(distance=False).distance is None


def test_distances_of_a_square_matrix_need_no_offset():
    q, k, _ = random_qkv()
    assert AttentionMatrix(q, k).summary().distance is not None


# Dtype


@pytest.mark.parametrize("kernel", ["reference", "strips"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_array_is_of_the_matrix_s_dtype(kernel, dtype, monkeypatch):
    monkeypatch.setenv("SOFTMAP_KERNEL", kernel)
    q, k, v = random_qkv(dtype=dtype)
    s = AttentionMatrix(q, k).summary(v)
    assert s.top.keys.dtype == np.int64
    found = [s.logsumexp, s.output, s.entropy, s.received, s.top.weights, *s.distance, s.cells.sum, s.cells.max]
    assert {array.dtype for array in found} == {np.dtype(dtype)}


# Copies


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor, array_api_strict.asarray])
@pytest.mark.parametrize("through", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_matrix_and_its_summary_can_be_stored(convert, through):
    q, k, v = map(convert, random_qkv())
    m = AttentionMatrix(q, k, mask=masks.causal() & masks.padding([True] * 9), sinks=[0] * 4)
    s = m.summary(v)
    other, stored = through(m), through(s)
    assert repr(other) == repr(m)
    assert type(other.dense()) is type(q)
    np.testing.assert_array_equal(np.asarray(other[1]), np.asarray(m[1]))
    assert repr(stored) == repr(s)
    for field in fields(s):
        one, two = getattr(s, field.name), getattr(stored, field.name)
        assert type(one) is type(two)
        for a, b in zip(one, two, strict=True) if isinstance(one, tuple) else [(one, two)]:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
