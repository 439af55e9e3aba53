"""Indexing an AttentionMatrix is indexing the dense array, by NumPy's rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from by_hand import by_hand, random_qkv
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from softmap import AttentionMatrix, SoftmapError, masks
from softmap.errors import SizeError, TileError
from softmap.matrix.indexing import expand, places

AXES = ("heads", "queries", "keys")
MANY = 200  # examples of a matrix
MORE = 600  # examples of the places alone, which take no matrix


@st.composite
def shapes_and_indices(draw, least=1):
    """A shape of at most three axes, and an index of it that NumPy takes or refuses."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=least, max_size=3)))
    n = len(shape)
    if draw(st.integers(0, 3)) == 0:
        return shape, draw(arrays.basic_indices(shape, allow_ellipsis=True))
    count = draw(st.integers(1, n))
    fitting = draw(arrays.mutually_broadcastable_shapes(num_shapes=count, max_dims=2, max_side=3)).input_shapes
    items = [draw(entries(size, form)) for size, form in zip(shape, fitting, strict=False)]
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, count)) if count == n else count, ...)
    return shape, tuple(items)


def entries(size, form):
    """One entry of an index: a number, a slice, an array of the form, a list, or booleans."""
    numbers = st.integers(-size, size - 1)
    whole = arrays.arrays(np.int64, form, elements=numbers)
    return st.one_of(
        numbers,
        st.slices(size),
        whole,
        whole.map(np.ndarray.tolist),
        whole.map(torch.from_numpy),
        arrays.arrays(bool, size),
    )


def as_numpy(index):
    items = index if isinstance(index, tuple) else (index,)
    return tuple(item.numpy() if isinstance(item, torch.Tensor) else item for item in items)


@settings(max_examples=MORE, deadline=None)
@given(shapes_and_indices())
def test_places_are_those_that_numpy_takes(case):
    shape, index = case
    dense = np.arange(np.prod(shape)).reshape(shape)
    try:
        wanted = dense[as_numpy(index)]
    except IndexError:
        with pytest.raises(TileError):
            places(expand(index, shape, AXES), shape)
        return
    got = dense[tuple(place.numpy() for place in places(expand(index, shape, AXES), shape))]
    assert got.shape == wanted.shape
    np.testing.assert_array_equal(got, wanted)


@settings(max_examples=MANY, deadline=None)
@given(shapes_and_indices(least=3), st.sampled_from(["weights", "scores", "scaled"]))
def test_every_index_gives_what_it_gives_of_the_dense_array(case, stage):
    (heads, queries, keys), index = case
    q, k, _ = random_qkv(heads, 1, queries, keys)
    m = AttentionMatrix(q, k, mask=masks.causal(offset=keys - queries))
    visible = np.arange(keys) <= np.arange(queries)[:, None] + keys - queries
    wanted = getattr(by_hand(q, k, visible=visible), stage)
    try:
        wanted = wanted[as_numpy(index)]
    except IndexError:
        return
    got = (m if stage == "weights" else getattr(m, stage))[index]
    assert got.shape == wanted.shape
    np.testing.assert_allclose(np.asarray(got), wanted, rtol=2e-5, atol=2e-6)


@pytest.fixture
def m():
    return AttentionMatrix(*random_qkv(queries=6, keys=8)[:2])


# What stays a matrix


@pytest.mark.parametrize("index", [..., slice(None), (slice(None), slice(None)), (..., slice(None)), ()])
def test_an_index_of_everything_gives_the_matrix_itself(m, index):
    assert m[index] is m
    assert m[0][:] is not m[0]  # but a new, equal view each time
    assert m[0][index if index != (slice(None), slice(None)) else ...].shape == (6, 8)


@pytest.mark.parametrize(
    ("index", "shape"),
    [
        (2, (6, 8)),
        (-1, (6, 8)),
        ((np.int64(2), ...), (6, 8)),
        (slice(1, 3), (2, 6, 8)),
        (slice(None, None, -1), (4, 6, 8)),
        ([3, 0], (2, 6, 8)),
        (np.array([True, False, True, True]), (3, 6, 8)),
    ],
)
def test_an_index_of_heads_gives_a_lazy_matrix(m, index, shape):
    for whole in (m, m.scores, m.scaled):
        assert type(whole[index]) is type(whole)
        assert whole[index].shape == shape
        np.testing.assert_allclose(whole[index].dense(), whole.dense()[index], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("index", "shape"),
    [
        ((0, 0), (8,)),
        ((0, 0, 0), ()),
        (([[0, 1], [2, 3]],), (2, 2, 6, 8)),
        (slice(0, 0), (0, 6, 8)),
        ((..., 0), (4, 6)),
    ],
)
def test_what_touches_queries_or_keys_gives_numbers(m, index, shape):
    assert isinstance(m[index], np.ndarray)
    assert m[index].shape == shape


def test_heads_of_heads_are_those_of_the_whole(m):
    dense = m.dense()
    np.testing.assert_allclose(m[[3, 1, 0]][1:][0].dense(), dense[1], rtol=1e-5)
    np.testing.assert_allclose(m[[3, 1, 0]][[0, 2], 4], dense[[3, 0], 4], rtol=1e-5)


# What is refused


@pytest.mark.parametrize(
    ("index", "expected", "got"),
    [
        (4, "index of the heads: expected -4 to 3", "got 4"),
        ((0, -7), "index of the queries: expected -6 to 5", "got -7"),
        ((0, 0, [1, 8]), "index of the keys: expected -8 to 7", "got 8"),
        ((0, 0, [1, -9]), "index of the keys: expected -8 to 7", "got -9"),
        ((0, 0, 0, 0), "expected at most 3 entries (heads, queries, keys)", "got 4"),
        ((..., 0, ...), "expected at most one ...", "got 2"),
        (None, "expected heads, queries and keys", "got None"),
        ((0, np.newaxis), "expected heads, queries and keys", "got None"),
        (True, "expected heads, queries and keys", "got True"),
        ((0, np.array(True)), "expected heads, queries and keys", "got a single boolean"),
        (1.0, "expected whole numbers, a slice or an array", "got float"),
        ("head", "expected whole numbers, a slice or an array", "got str"),
        ([[0], [1, 2]], "expected whole numbers, a slice or an array", "got list"),
        (np.array([0.0, 1.0]), "expected an array of whole numbers or booleans", "got torch.float64"),
        ((0, [True, False]), "index of the queries: expected booleans of shape (6,)", "got (2,)"),
        (slice(0, 1.5), "expected a slice of whole numbers", "got slice(0, 1.5, None)"),
        (slice(0, 4, 0), "expected a slice with a step other than 0", "got slice(0, 4, 0)"),
        (([0, 1], [0, 1, 2]), "expected arrays whose shapes broadcast", "got (2,) and (3,)"),
    ],
)
def test_an_index_that_numpy_has_no_place_for_is_refused(m, index, expected, got):
    for whole in (m, m.scores):
        with pytest.raises(IndexError) as caught:
            whole[index]
        assert type(caught.value) is TileError
        assert expected in str(caught.value)
        assert got in str(caught.value)


KINDS = "Indices are NumPy's: whole numbers, slices, ..., arrays of whole numbers, or booleans for rows."


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (4, "index of the heads: expected -4 to 3, got 4. There are 4 heads."),
        ((0, 0, 0, 0), "index: expected at most 3 entries (heads, queries, keys), got 4. Leave the rest out."),
        ((..., 0, ...), "index: expected at most one ..., got 2. Write : for single axes."),
        (None, "index: expected heads, queries and keys, got None. Add an axis to the result instead."),
        ((0, np.array(True)), f"index: expected heads, queries and keys, got a single boolean. {KINDS}"),
        ("head", f"index: expected whole numbers, a slice or an array, got str. {KINDS}"),
        (np.array([0.0]), f"index: expected an array of whole numbers or booleans, got torch.float64. {KINDS}"),
        (np.array([1j]), f"index: expected an array of whole numbers or booleans, got torch.complex128. {KINDS}"),
        (slice(0, 1.5), f"index: expected a slice of whole numbers, got slice(0, 1.5, None). {KINDS}"),
        (slice(0, 4, 0), f"index: expected a slice with a step other than 0, got slice(0, 4, 0). {KINDS}"),
        (
            (0, [True, False]),
            "index of the queries: expected booleans of shape (6,), got (2,). One for each entry.",
        ),
        (
            ([0, 1], [0, 1, 2]),
            "index: expected arrays whose shapes broadcast, got (2,) and (3,). "
            "For every row with every key: numpy.ix_(rows, keys).",
        ),
        (
            np.array([2**63], dtype=np.uint64),
            f"index: expected an array of whole numbers below 2^63, got {2**63}. {KINDS}",
        ),
    ],
    ids=str,
)
def test_refusal_of_an_index_says_what_to_do(m, index, message):
    with pytest.raises(TileError) as caught:
        m[index]
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "index",
    [(0, []), ([], 0), (0, np.zeros(0, dtype=np.int64)), (0, [], []), (0, slice(0, 3), ()), (0, [[], []])],
    ids=str,
)
def test_empty_arrays_take_nothing_as_in_numpy(m, index):
    taken = m[index]
    wanted = m.dense()[tuple(np.asarray(i, dtype=np.int64) if isinstance(i, list | tuple) else i for i in index)]
    assert taken.shape == wanted.shape
    assert taken.size == 0


def test_tensor_of_one_number_keeps_its_axis_and_what_counts_as_a_number_has_none(m):
    class Third:
        def __index__(self):
            return 3

    assert m[0, torch.tensor([3])].shape == (1, 8)
    np.testing.assert_array_equal(m[0, Third()], m[0, 3])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_narrow_whole_numbers_reach_the_end_of_a_long_axis(dtype):
    last = np.array([-1 if dtype != np.uint8 else 200], dtype=dtype)
    (place,) = places(expand(last, (300,), AXES), (300,))
    assert place.dtype == torch.int64
    assert place.tolist() == [299 if dtype != np.uint8 else 200]


def test_places_are_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        found = places(expand((0, 1, 2), (4, 6, 8), AXES), (4, 6, 8))
    assert [place.device.type for place in found] == ["cpu"] * 3


def test_a_result_of_more_than_a_gibibyte_is_refused_and_says_what_to_do():
    q = np.zeros((2, 20_000, 1), dtype=np.float32)
    m = AttentionMatrix(q, q)
    for make in (
        lambda: m[0, :, 1:],
        lambda: m.scaled[:, 1:],
        lambda: np.asarray(m[0]),
        lambda: m.blocks((1, 1)),
        lambda: m.summary(cells=20_000),
    ):
        with pytest.raises(MemoryError) as caught:
            make()
        assert isinstance(caught.value, SizeError)
        assert isinstance(caught.value, SoftmapError)
        for part in ("at most 1 GiB", "GiB for a result of shape", "summary()", "a smaller tile", "dense()"):
            assert part in str(caught.value)
    assert m[0, :, :3].shape == (20_000, 3)


@pytest.mark.parametrize(
    "index",
    [
        (slice(None), [0, 1], ..., [0, 1]),
        (slice(None), ..., [0, 1], [0, 1]),
        (slice(None), [0, 1], [0, 1], ...),
        (..., [0, 1], slice(None), [0, 1]),
        ([0, 1], ..., slice(None), [0, 1]),
        (slice(1, None), [[0, 1], [2, 3]], ..., 4),
        (slice(None), 2, ..., [0, 1, 5]),
        (0, ..., [0, 1], [0, 1]),
    ],
    ids=str,
)
def test_a_row_of_dots_that_takes_no_axis_keeps_arrays_apart_as_in_numpy(index):
    q, k, _ = random_qkv(heads=3, kv_heads=3, queries=6, keys=8)
    dense, m = by_hand(q, k).weights, AttentionMatrix(q, k)
    assert m[index].shape == dense[index].shape
    np.testing.assert_allclose(m[index], dense[index], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("number", [np.uint64(2**64 - 1), np.array([2**64 - 1], dtype=np.uint64), 2**70])
def test_number_beyond_int64_is_refused_as_it_is(number):
    m = AttentionMatrix(torch.zeros(2, 5, 4), torch.zeros(2, 5, 4))
    with pytest.raises(TileError, match=str(int(np.ravel(number)[0]))):
        m[0, number]
